"""The oracle of client updates: what an honest-but-curious server holds, or less.

GR    the server itself. GR-D  an eavesdropper outside, who reads uploads and downloads.
GR-A  a server that also chose weights, and saw the same clients' answers to them.
GR-U  an eavesdropper who reads uploads alone: the architecture and the weights of the first round that is seen are
      public, later weights are not.

observe_update(which) -> name -> (clients, ...): the payloads, decoded, that the server received; "client" is
    the attacked clients, "decoy", where there are any, other clients with other samples under the same labels
    (controls). back=k: what the attacked clients sent k rounds before, where the protocol lets several rounds be seen.
global_model() -> a frozen copy of the model that it sent out, batch norms in the protocol's mode; back=k as above.
initial_model() -> the same for the first round that is seen. architecture() -> the network, every value 0.
planted_model(which) -> the network with the weights that an active server sent (`protocol.planted`): "plain", or
    "disguised", where `protocol.disguise` says how much.
planted_update(which, what) -> as `observe_update`, the answers to these: "view", what the protocol shows the server, or
    "mean", the mean of the round, which the next model tells it, for every client.
protocol() -> the agreed constants as a dictionary: the settings of `core.protocol.Protocol`, of the smallest batch;
    `sizes`, the batch size of every client, and `protocols`, its settings; `statistics`, where the protocol shares
    them: a list per batch norm of (mean (clients, channels), biased variance).

One query is one client's update read once. No attack gets the batch, nor what the protocol does not declare.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.core.errors import AccessDenied
from inversionbench.core.levels import LEVELS
from inversionbench.federation.client import batch_norms
from inversionbench.federation.settings import Batches
from inversionbench.oracle.base import Ledger, Oracle


def update_oracle(
    model: nn.Module, released: Mapping[str, Any], batches: Batches, classes: int, level: str = "GR",
    budget: int | None = None,
) -> Oracle:
    """The oracle over the `updates` ("client" and "decoy" -> name -> (clients, ...)) of one round of `model`.

    released: where there are any also `statistics`, and `earlier`, the rounds before, oldest first, each with `state`
    (weights sent out) and `update`.
    """
    ledger = Ledger(budget)
    state = {name: t.detach().clone() for name, t in model.state_dict().items()}
    updates, earlier, statistics = released["updates"], released.get("earlier", ()), released.get("statistics")
    first = batches.protocols[0]

    def before(back: int) -> Mapping[str, Any]:
        if not 1 <= back <= len(earlier):
            raise AccessDenied(f"{len(earlier) + 1} rounds are seen (protocol.rounds), not the one {back} before")
        return earlier[-back]

    def observe_update(which: str = "client", phase: str = "init", back: int = 0) -> dict[str, Tensor]:
        if which not in updates or (back and which != "client"):
            raise AccessDenied(f"observe_update: the scenario has {', '.join(sorted(updates))}, not '{which}'"
                               + (f" {back} rounds before" if back else ""))  # fmt: skip
        seen = before(back)["update"] if back else updates[which]
        seen = {name: t.detach().clone() for name, t in seen.items()}
        ledger.charge("observe_update", len(next(iter(seen.values()))), phase)
        return seen

    def global_model(back: int = 0) -> nn.Module:
        model.load_state_dict(before(back)["state"] if back else state)
        return frozen()

    def frozen() -> nn.Module:
        with torch.no_grad():
            twin = copy.deepcopy(model).requires_grad_(False).eval()
        for norm in batch_norms(twin):
            norm.mode(first.bn)
        return twin

    def planted(which: str, what: str) -> Any:
        if which not in released.get("planted", {}):
            raise AccessDenied(f"the scenario's server plants no {which} weights (protocol.planted, protocol.disguise)")
        return released["planted"][which][what]

    def planted_model(which: str = "plain") -> nn.Module:
        model.load_state_dict(planted(which, "state"))
        return frozen()

    def planted_update(which: str = "plain", what: str = "view", phase: str = "init") -> dict[str, Tensor]:
        seen = {name: t.detach().clone() for name, t in planted(which, what).items()}
        ledger.charge("planted_update", len(next(iter(seen.values()))), phase)
        return seen

    def constants() -> dict[str, Any]:
        shared = {"statistics": [(m.clone(), v.clone()) for m, v in statistics]} if statistics else {}
        each = [p.plain for p, clients in batches.parts() for _ in clients]
        return {**first.plain, "sizes": batches.sizes, "protocols": each, **shared}

    def architecture() -> nn.Module:
        bare = frozen()
        with torch.no_grad():
            for value in bare.state_dict().values():
                value.zero_()
        return bare

    calls: dict[str, Callable[..., Any]] = {
        "observe_update": observe_update, "global_model": global_model, "protocol": constants,
        "planted_model": planted_model, "planted_update": planted_update,
        "architecture": architecture, "initial_model": lambda: global_model(len(earlier)),
    }  # fmt: skip
    return Oracle(level, {name: calls[name] for name in LEVELS[level].calls}, ledger, None, classes)
