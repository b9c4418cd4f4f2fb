"""The oracle of the federated track: what an honest-but-curious server holds, or less.

GR    the server itself. GR-D  an eavesdropper outside, who reads uploads and downloads.
GR-U  an eavesdropper who reads uploads alone: the architecture and the weights of the first round that is seen are
      public, later weights are not.

observe_update(which) -> name -> (clients, ...): the payloads, decoded, that the server received; "client" is
    the attacked clients, "decoy" other clients with images of other classes under the same labels (controls).
    back=k: what the attacked clients sent k rounds before, where the protocol lets several rounds be seen.
global_model() -> a frozen copy of the model that it sent out, batch norms in the protocol's mode; back=k as above.
initial_model() -> the same for the first round that is seen. architecture() -> the network, every value 0.
protocol() -> the agreed constants as a dictionary; `statistics` holds the shared batch statistics, where the
    protocol shares them: a list per batch norm of (mean (clients, channels), biased variance).

One query is one client's update read once. No attack gets the batch, nor what the protocol does not declare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import AccessDenied
from inversionbench.core.levels import LEVELS
from inversionbench.core.protocol import Protocol
from inversionbench.models.federated import Victim
from inversionbench.oracle.base import Ledger, Oracle

VIEWS = ("client", "decoy")


def gr_oracle(
    model: Victim,
    updates: Mapping[str, Mapping[str, Tensor]],
    protocol: Protocol,
    statistics: list[tuple[Tensor, Tensor]] | None = None,
    budget: int | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
    level: str = "GR",
) -> Oracle:
    """The oracle over `updates` ("client" and "decoy" -> name -> (clients, ...)) of one round of `model`.

    earlier: the rounds before, oldest first, each with `state` (weights sent out) and `update`.
    """
    ledger = Ledger(budget)
    state = {name: t.detach().clone() for name, t in model.state_dict().items()}

    def before(back: int) -> Mapping[str, Any]:
        if not 1 <= back <= len(earlier):
            raise AccessDenied(f"{len(earlier) + 1} rounds are seen (protocol.rounds), not the one {back} before")
        return earlier[-back]

    def observe_update(which: str = "client", phase: str = "init", back: int = 0) -> dict[str, Tensor]:
        if which not in VIEWS or (back and which != "client"):
            raise ValueError(f"observe_update: expected one of {', '.join(VIEWS)}, got '{which}', back={back}")
        seen = before(back)["update"] if back else updates[which]
        seen = {name: t.detach().clone() for name, t in seen.items()}
        ledger.charge("observe_update", len(next(iter(seen.values()))), phase)
        return seen

    def global_model(back: int = 0) -> Victim:
        model.load_state_dict(before(back)["state"] if back else state)
        copy = _copy(model)
        return copy.bn_mode(protocol.bn)

    def constants() -> dict[str, Any]:
        shared = {"statistics": [(m.clone(), v.clone()) for m, v in statistics]} if statistics else {}
        return {**protocol.plain, **shared}

    def architecture() -> Victim:
        bare = _copy(model).bn_mode(protocol.bn)
        with torch.no_grad():
            for value in bare.state_dict().values():
                value.zero_()
        return bare

    calls: dict[str, Callable[..., Any]] = {
        "observe_update": observe_update, "global_model": global_model, "protocol": constants,
        "architecture": architecture, "initial_model": lambda: global_model(len(earlier)),
    }  # fmt: skip
    return Oracle(level, {name: calls[name] for name in LEVELS[level].calls}, ledger, None, model.classes)


def _copy(model: Victim) -> Victim:
    """A copy without gradients and without hooks."""
    import copy

    with torch.no_grad():
        twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin.eval()
