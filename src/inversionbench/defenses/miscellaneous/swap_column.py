"""Control: the sensitive column permuted among a share of the training records, before training.

The simplest way to break the tie between a person and the value: half of the share's records, roughly, hold somebody
else's. strength: the share, at most 1 (0: off), at 1 nothing of anybody's own value is learnt, and nothing of its
correlation with the response either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.core.ranges import NonNegative
from inversionbench.defenses._column import OfColumn

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class SwapColumn(OfColumn):
    """strength: share of the records."""

    id = "swap_column"
    hooks = frozenset({"training_set"})
    inputs = ("table",)

    strength: NonNegative = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength: expected a share from 0 to 1, got {self.strength}")

    def training_set(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.strength == 0:
            return x, y
        import torch

        chosen = torch.randperm(len(x), generator=rng)[: round(self.strength * len(x))]
        given, (start, stop) = chosen[torch.randperm(len(chosen), generator=rng)], self.column
        x = x.clone()
        x[chosen, start:stop] = x[given, start:stop]
        return x, y
