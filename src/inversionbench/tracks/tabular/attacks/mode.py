"""Control: always the most frequent value of the sensitive attribute among public records. Asks nothing.

Its accuracy is what a skewed attribute gives for free; its balanced accuracy is 1 / V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.oracle.base import Oracle
from inversionbench.tracks.tabular.attacks._posterior import facts


@dataclass(frozen=True)
class Mode(Attack):
    """data: int64 (n,), one value for all records; scores: the public marginal (n, V)."""

    id: ClassVar[str] = "mode"
    level: ClassVar[str] = "LO"
    control: ClassVar[bool] = True
    control_without_defense: ClassVar[bool] = True

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        n, marginal = len(knowledge.records), knowledge.marginal
        value = torch.full((n,), int(marginal.argmax()), dtype=torch.int64)
        return Reconstruction(value, knowledge.responses, marginal.float().repeat(n, 1), notes=facts(knowledge))
