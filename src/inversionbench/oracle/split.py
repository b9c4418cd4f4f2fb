"""Oracles of a network in two halves, whose features of the victims' inputs the attacker observed.

observe(releases)  what the client sent for the victims, (releases, n, ...): so often, with fresh draws where a defense
                   draws them for each release
features(x)        what the client sends for inputs x, with the defense in it (a query; at FT-WB a pass)
client_module()    the client half without the release, counted as `module`     (FT-WB)
server_module()    the server half
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inversionbench.core.levels import LEVELS
from inversionbench.models.split import Halves
from inversionbench.oracle.base import InputSpec, Ledger, Oracle
from inversionbench.oracle.classifier import CHUNK, WhiteBox


def split_oracle(
    net: Halves, features: Tensor, level: str, spec: InputSpec, classes: int, budget: int | None = None
) -> Oracle:
    """net: the halves with the release in them, frozen. features: (n, ...), the client half's of the victims, before
    the release. budget: most queries of the client."""
    ledger, where = Ledger(budget), next(net.parameters()).device

    @torch.no_grad()
    def observe(releases: int = 1) -> Tensor:
        z = features.to(where)
        return torch.stack([net.release(z, net) if net.release else z for _ in range(releases)]).cpu()

    @torch.no_grad()
    def ask(x: Tensor, phase: str = "train") -> Tensor:
        spec.check(x)
        ledger.charge("module" if "client_module" in LEVELS[level].calls else "features", len(x), phase)
        return torch.cat([net.send(part.to(where)).cpu() for part in x.split(CHUNK)])

    calls: dict[str, Callable[..., Any]] = {
        "observe": observe, "features": ask, "client_module": lambda: WhiteBox(net.client, ledger),
        "server_module": lambda: WhiteBox(net.server, ledger),
    }  # fmt: skip
    return Oracle(level, {name: calls[name] for name in LEVELS[level].calls}, ledger, spec, classes)
