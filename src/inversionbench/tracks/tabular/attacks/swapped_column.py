"""Control: the same attack on a target whose training rows had their sensitive column permuted.

The twin target saw the same rows, responses and other attributes, the same seed and defense, but nobody's own
sensitive value. What attribute inference still finds through it is not memory of a person; through the
permuted column it is not even correlation in the population, so the result lies at the mode. A result above
the mode is an error of the set-up: the sensitive value reaches the attack by another way.

Parameters are those of `mi_attribute`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.oracle.base import Oracle
from inversionbench.tracks.tabular.attacks._posterior import check, infer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SwappedColumn(Attack):
    """As `MIAttribute`, with the twin behind the oracle."""

    id: ClassVar[str] = "swapped_column"
    level: ClassVar[tuple[str, ...]] = ("LO", "BB-S", "WB")
    control: ClassVar[bool] = True
    control_without_defense: ClassVar[bool] = True
    twin: ClassVar[bool] = True  # the oracle answers with the twin

    access: str = "BB-S"
    belief: Literal["marginal", "conditional", "uniform"] = "marginal"

    def __post_init__(self) -> None:
        check(self.id, self.access, self.belief)

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        return infer(self.access, self.belief, oracle, knowledge, rng, errors="twin_confusion")
