"""Control: always the most frequent value of the sensitive attribute among public records. Asks nothing.

Its accuracy is what a skewed attribute gives for free; its balanced accuracy is 1 / V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from inversionbench.attacks.base import Attack, Knowledge, Reconstruction
from inversionbench.attacks.tabular._posterior import facts
from inversionbench.oracle.base import Oracle


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
