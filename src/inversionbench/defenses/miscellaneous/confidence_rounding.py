"""Confidence rounding: release scores rounded to a grid; the label stays the true argmax.

Survey 1 and 3 (background). Fredrikson, Jha, Ristenpart, "Model Inversion Attacks that Exploit Confidence
Information and Basic Countermeasures", CCS 2015.

p_r = r round(p / r) element by element, r = strength, halves to even, without renormalisation (the paper's
form); `renormalise` divides by the sum where it is positive. Gradient estimates from score differences
smaller than r see nothing. White-box and label-only attacks are untouched, bit for bit.

Published grid: 0.001, 0.005, 0.01, 0.05, 0.1 (from memory).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import NonNegative

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class ConfidenceRounding(Defense):
    """strength: width r of the grid, in (0, 1]; 0 releases the softmax as it is."""

    id: ClassVar[str] = "confidence_rounding"
    hooks: ClassVar[frozenset[str]] = frozenset({"release"})
    keeps_labels: ClassVar[bool] = True
    post_processing: ClassVar[bool] = True  # of what is released: anybody can do it himself

    strength: NonNegative = 0.0
    renormalise: bool = False

    def release(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        p = super().release(logits, rng)
        if self.strength == 0:
            return p
        rounded = rounded_to(p, self.strength)
        return rounded / rounded.sum(1, keepdim=True).clamp_min(1e-12) if self.renormalise else rounded

    def public_knowledge(self) -> dict[str, Any]:
        return {"grid": self.strength}


def rounded_to(p: Tensor, r: float) -> Tensor:
    """r round(p / r), never above 1.

    >>> import torch
    >>> rounded_to(torch.tensor([[0.34, 0.66]]), 0.1)
    tensor([[0.3000, 0.7000]])
    """
    return ((p / r).round() * r).clamp_max(1.0)
