"""H7 seen whole: a round in which several clients' payloads meet, who sees what of it, and what it costs.

    payloads ── mask, encrypt, scatter ── transmit ──▶ server ── open what may be opened ──▶ mean
                                            │            │                                    │
                                       eavesdropper    server                        another client

`Defense.exchange` runs it. The default is plain federated learning on top of `Defense.aggregate`; a protocol
(secure aggregation, homomorphic encryption, fragments among peers) overrides it.

observer: whose view the attacker gets, one row (an update) for every client:
    server        honest but curious
    eavesdropper  taps the links between clients and server, no channel encryption of its own
    client        another client, the next one in order: it knows the mean before and after, and its own update
    collusion     the server together with that client
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inversionbench.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inversionbench.core.defense import Defense

Update = dict[str, "Tensor"]
@dataclass(frozen=True)
class Round:
    """number: from 0. rng: of the protocol. sizes: bytes of each payload after H6. observer: whose view is
    wanted, None in training. attacked: whether this round is attacked; in the others a protocol may do the
    arithmetic of its sum without the cryptography around it, where the two are equal bit for bit.
    """

    number: int
    rng: torch.Generator
    sizes: Sequence[int]
    observer: str | None = None
    attacked: bool = False


@dataclass
class Exchange:
    """mean: the weighted mean that all go on with. view: the observer's rows, one per client. bytes_up,
    bytes_down: of each client, to and from the server or peers. facts: what anybody may know of this round.
    """

    mean: Update
    view: Sequence[Update]
    bytes_up: Sequence[float]
    bytes_down: Sequence[float]
    facts: dict[str, Any] = field(default_factory=dict)


def plain(defense: Defense, payloads: Sequence[Update], weights: Sequence[float], round: Round) -> Exchange:
    """Every client sends its payload to the server, which aggregates and sends the mean to all."""
    mean, seen = defense.aggregate(payloads, weights)
    view: Sequence[Update] = seen if len(seen) == len(payloads) else [seen[0]] * len(payloads)
    if round.observer == "eavesdropper":
        view = payloads
    elif round.observer == "client":
        view = of_others(defense, payloads, weights)
    down = dense_size(payloads[0])
    return Exchange(mean, view, list(round.sizes), [down] * len(payloads))


def of_others(defense: Defense, payloads: Sequence[Update], weights: Sequence[float]) -> list[Update]:
    """What the next client knows of each: the mean of all but itself. Of two clients that is the other's update.

    Raises `UserError` where a client is alone.
    """
    n = len(payloads)
    if n < 2:
        raise UserError("protocol.observer: 'client' and 'collusion' need at least 2 clients in the round")
    rows = []
    for i in range(n):
        kept = [k for k in range(n) if k != (i + 1) % n]
        rows.append(defense.aggregate([payloads[k] for k in kept], [weights[k] for k in kept])[0])
    return rows


def dense_size(update: Mapping[str, Tensor]) -> int:
    """Bytes of an update as float32."""
    return sum(4 * t.numel() for t in update.values())
