"""The oracle of client updates without batch norms, level GR: tables and text.

observe_update(which) -> name -> (clients, ...): the payloads, decoded, that the server received. "client" is
    the attacked clients; "decoy", where there are any, other clients with other samples of the same classes.
global_model() -> a frozen copy of the model that the server sent out.
protocol() -> the agreed constants: `sizes`, the batch size of every client, and per client the settings of
    its `Protocol` under `protocols`.

One query is one client's update read once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from inversionbench.core.errors import AccessDenied
from inversionbench.federation.batches import Batches
from inversionbench.oracle.base import Ledger, Oracle


def update_oracle(
    model: nn.Module,
    updates: Mapping[str, Mapping[str, Tensor]],
    batches: Batches,
    classes: int,
    budget: int | None = None,
) -> Oracle:
    """The oracle over `updates` (view -> name -> (clients, ...)) of one round of `model`."""
    ledger = Ledger(budget)
    frozen = copy.deepcopy(model).requires_grad_(False).eval()

    def observe_update(which: str = "client", phase: str = "init") -> dict[str, Tensor]:
        if which not in updates:
            raise AccessDenied(f"observe_update: the scenario has {', '.join(sorted(updates))}, not '{which}'")
        seen = {name: t.detach().clone() for name, t in updates[which].items()}
        ledger.charge("observe_update", len(next(iter(seen.values()))), phase)
        return seen

    def global_model() -> nn.Module:
        return copy.deepcopy(frozen)

    def constants() -> dict[str, Any]:
        plain = [p.plain for p, clients in batches.parts() for _ in clients]
        return {"sizes": batches.sizes, "protocols": plain}

    calls: dict[str, Callable[..., Any]] = {
        "observe_update": observe_update, "global_model": global_model, "protocol": constants,
    }  # fmt: skip
    return Oracle("GR", calls, ledger, None, classes)
