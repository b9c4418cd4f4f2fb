"""Secure aggregation among neighbours (survey 4.5; AAIA: Yang et al., Int. J. Inf. Security 2023; the protocol of
Bonawitz et al., CCS 2017, on the sparse graph of Bell et al., CCS 2020): reconstruction.

Clients send masked integers; the masks of a group cancel in its sum and in nothing less. See `_masking` for the
rounds. AAIA agrees on keys with a subset of the clients only; its own key procedure was not available, so the
subset is the published ring of `neighbours`, and dropouts are recovered from shares with the two-secret rule.

strength: clients per sum (0: off). A round of more clients is split into groups of that size. With 1 the "sum"
is the client's own update: the row that shows what masks alone hide from the server, nothing.

What the attacker gets: the server (and the eavesdropper who can read broadcasts) the mean of the group, the
eavesdropper on one link the masked vector read as if it were not masked, another client the mean of all others,
the server in collusion with one group member the mean of the group without that member.

bits: fractional bits f; clip: c. count * c * 2^f must stay below 2^31. neighbours: k of every client, 0 = all
others; the threshold is floor(k / 2) + 1. dropouts: clients per group that vanish after masking; the mean is then
over the others.

Deviations: f = 20 instead of 16, as a gradient has smaller entries than a weight; up to 255 clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense
from inversionbench.core.exchange import Exchange, Round, of_others
from inversionbench.core.ranges import Count, Positive, Whole

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from inversionbench.defenses.cryptographic_encryption._stream import Stream

    Update = dict[str, Tensor]


SECURITY = "128 bits (X25519, ChaCha20)"


@dataclass(frozen=True)
class SecureAggregation(Defense):
    """clip, bits: of the fixed point. neighbours: of every client. dropouts: per group."""

    id = "secure_aggregation"
    hooks = frozenset({"aggregate"})
    federated = True
    places = ("ring", "mask")
    takes = ("dense", "sparse")
    gives = "masked"

    clip: Positive = 8.0
    bits: Count = 20
    neighbours: Whole = 0
    dropouts: Whole = 0

    def __post_init__(self) -> None:
        if self.strength < 0 or self.strength != int(self.strength):
            raise ValueError(f"secure_aggregation: strength is a number of clients per sum, got {self.strength}")
        if max(1, int(self.strength)) * self.clip * 2**self.bits >= 2**31:
            raise ValueError(f"secure_aggregation: {int(self.strength)} clients x clip {self.clip} x 2^{self.bits} "
                             "leaves the ring of 2^32: fewer bits or a smaller clip")  # fmt: skip
        if self.neighbours % 2 or self.dropouts < 0:
            raise ValueError("secure_aggregation: an even number of neighbours and no negative dropouts, got "
                             f"{self.neighbours}, {self.dropouts}")  # fmt: skip

    @property
    def crowd(self) -> int:
        return max(1, int(self.strength))

    def aggregate(
        self, payloads: Sequence[Update], weights: Sequence[float]
    ) -> tuple[Update, Sequence[Update]]:
        """Mean and view of the server, with keys from the operating system."""
        if self.strength == 0:
            return super().aggregate(payloads, weights)
        from inversionbench.defenses.cryptographic_encryption._stream import Stream

        done = self._run(payloads, weights, 0, "server", Stream.system())
        return done.mean, done.view

    def exchange(self, payloads: Sequence[Update], weights: Sequence[float], round: Round) -> Exchange:
        if self.strength == 0:
            return super().exchange(payloads, weights, round)
        from inversionbench.defenses.cryptographic_encryption._stream import Stream

        return self._run(payloads, weights, round.number, round.observer, Stream.seeded(round.rng))

    def _run(
        self, payloads: Sequence[Update], weights: Sequence[float], number: int, observer: str | None, stream: Stream
    ) -> Exchange:
        """All groups of one round."""
        import numpy as np

        from inversionbench.defenses._fixed_point import centred, decode, encode, sessions, shares_of

        n, like = len(payloads), payloads[0]
        encoded = [encode(p, w, self.clip, self.bits) for p, w in zip(payloads, shares_of(weights))]
        x = [values for values, _ in encoded]
        view: list[Update] = [{} for _ in payloads]
        up, down, kept = [0.0] * n, [0.0] * n, []
        total = np.zeros_like(x[0])
        groups = sessions(n, self.crowd)
        for members in groups:
            done = _session([x[u] for u in members], self.neighbours, self.dropouts, number, stream)
            added = centred(done.total)
            if not np.array_equal(added, sum(x[members[u]] for u in done.survivors)):
                raise RuntimeError("secure aggregation: the decoded sum is not the sum of the inputs")
            kept += [members[u] for u in done.survivors]
            total += added
            for place, u in enumerate(members):
                up[u], down[u] = done.up[place], done.down[place]
                view[u] = self._seen(observer, members, place, done, x, added, like)
        if observer == "client":
            view = of_others(Defense(), payloads, weights)
        return Exchange(decode(total, like, self.bits, len(kept)), view, up, down, {
            "clients_per_sum": max(map(len, groups)),
            "groups": groups,
            "clipped": sum(c for _, c in encoded) / (n * len(x[0])),
            "security": SECURITY,
            "security_bits": 128.0,
        })  # fmt: skip

    def _seen(
        self, observer: str | None, members: list[int], place: int, done: Session, x: list[np.ndarray],
        total: np.ndarray, like: Update,
    ) -> Update:
        """The observer's row for one member of a group."""
        from inversionbench.defenses._fixed_point import centred, decode

        partner = (place + 1) % len(members)
        if observer == "eavesdropper":
            return decode(centred(done.masked[place]), like, self.bits)
        count = len(done.survivors)
        if observer == "collusion" and partner != place and partner in done.survivors:
            return decode(total - x[members[partner]], like, self.bits, max(1, count - 1))
        return decode(total, like, self.bits, count)

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        """The masks' level, and what they leave open."""
        if self.strength == 0:
            return ()
        open_sum = "the client's own update is opened" if self.strength == 1 else f"the sum of {self.crowd} is opened"
        return (f"masks: {SECURITY}; {open_sum}",)

    def bytes_sent(self, update: Update) -> int:
        """Masked words, two public keys, sealed shares for the neighbours, and one opened share of each client."""
        if self.strength == 0:
            return super().bytes_sent(update)
        from inversionbench.defenses.cryptographic_encryption._masking import BOX, PUBLIC
        from inversionbench.defenses.cryptographic_encryption._shamir import SHARE

        k = self.crowd - 1 if self.neighbours == 0 else min(self.neighbours, self.crowd - 1)
        return sum(4 * t.numel() for t in update.values()) + 2 * PUBLIC + k * BOX + (k + 1) * SHARE

    def public_knowledge(self) -> dict[str, Any]:
        return {"clients_per_sum": self.crowd, "clip": self.clip, "bits": self.bits}


@dataclass
class Session:
    """One group's run. masked: per client, uint32 (d,). total: of the survivors, modulo 2^32. agreements: of keys
    for masks, each counted once for the pair.
    """

    masked: list[np.ndarray]
    total: np.ndarray
    survivors: list[int]
    up: list[float]
    down: list[float]
    agreements: int


def _session(x: list[np.ndarray], degree: int, dropouts: int, number: int, stream: Stream) -> Session:
    """The four rounds among the clients with inputs x, each int64 (d,)."""
    import numpy as np

    from inversionbench.defenses.cryptographic_encryption import _masking as masking

    n, d = len(x), len(x[0])
    order = sorted(range(n), key=lambda u: stream.bytes(8))
    graph = masking.neighbours(n, degree, order)
    clients = [masking.Participant(u, number, stream.child()) for u in range(n)]
    directory = [c.public for c in clients]
    thresholds = [len(g) // 2 + 1 for g in graph]
    boxes = [c.share({v: directory[v] for v in graph[u]}, thresholds[u]) for u, c in enumerate(clients)]
    for u, c in enumerate(clients):
        c.receive({v: boxes[v][u] for v in graph[u]})
    y = [c.masked(values.astype(np.uint64).astype(np.uint32)) for c, values in zip(clients, x)]
    gone = set(order[:dropouts])
    alive = [u for u in range(n) if u not in gone]
    told = {u: clients[u].reveal(set(alive), gone) for u in alive}
    total = masking.unmask({u: y[u] for u in alive}, told, directory, graph, thresholds, number)
    down = [4.0 * d + len(g) * (2 * masking.PUBLIC + masking.BOX) + (n + 7) // 8 for g in graph]
    agreements = sum(c.agreements for c in clients) // 2
    return Session(y, total, alive, [float(c.sent) for c in clients], down, agreements)
