"""Top-k release: a service gives the k highest scores; all others become 0. The label is kept.

Survey 4.7 (beside confidence rounding). Truncation of the prediction vector as a countermeasure: Shokri et al., S&P
2017, section VIII; Yang et al., CCS 2019, invert truncated vectors. Scores are not renormalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import Share

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TopK(Defense):
    """strength: 1 / k, from 1 (the best score alone) down; 0 releases all scores."""

    id: ClassVar[str] = "top_k"
    hooks: ClassVar[frozenset[str]] = frozenset({"release"})
    keeps_labels: ClassVar[bool] = True
    post_processing: ClassVar[bool] = True  # of what is released: anybody can do it himself

    strength: Share = 0.0

    def release(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        p = super().release(logits, rng)
        if self.strength == 0:
            return p
        best = p.topk(min(round(1 / self.strength), p.shape[1]), dim=1)
        return torch.zeros_like(p).scatter(1, best.indices, best.values)

    def public_knowledge(self) -> dict[str, Any]:
        return {"released": round(1 / self.strength) if self.strength else None}
