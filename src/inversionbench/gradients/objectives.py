"""How far a dummy update is from the observed one, per trial.

`Matching` holds the observed vectors (trials, size) in the simulator's layout and gives (trials,) values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import UserError, suggest

KINDS = ("cosine", "l2")
TINY = 1e-30  # norms are never divided by less: gradients of trained networks have norms of 1e-6


class Cosine(torch.autograd.Function):
    """1 - <g, u> / ||g|| for rows g and unit rows u: (trials,)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, unit: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(g, dim=1).clamp_min(TINY)
        cos = torch.linalg.vecdot(g, unit) / norm
        ctx.save_for_backward(g, unit, norm, cos)
        return 1 - cos

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        g, unit, norm, cos = ctx.saved_tensors
        scale = (d / norm)[:, None]
        return torch.addcmul(-scale * unit, scale * (cos / norm)[:, None], g), None


@dataclass(frozen=True)
class Matching:
    """An objective bound to what was observed.

    kind: "cosine", 1 - cosine over the whole vector (Geiping et al. 2020), 0 to 2, blind to scale; or "l2",
    the sum of squared differences (Zhu et al. 2019). mask (trials, size) of 0 and 1: compare only these
    entries (an attacker who sees which entries a defense removed). view: a linear map that both updates go through
    first; the mask is then of what comes out.
    """

    observed: Tensor
    kind: str = "cosine"
    mask: Tensor | None = None
    view: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"objective: unknown '{self.kind}': {suggest(self.kind, KINDS)}")
        target = self.observed if self.view is None else self.view(self.observed)
        target = target if self.mask is None else target * self.mask
        if self.kind == "cosine":
            target = target / target.norm(dim=1, keepdim=True).clamp_min(TINY)
        object.__setattr__(self, "target", target)

    def __call__(self, g: Tensor) -> Tensor:
        target: Tensor = self.target  # type: ignore[attr-defined]
        if self.view is not None:
            g = self.view(g)
        if self.mask is not None:
            g = g * self.mask
        return Cosine.apply(g, target) if self.kind == "cosine" else (g - target).square().sum(dim=1)

    def of(self, index: Any) -> Matching:
        """The same for some of the trials."""
        mask = None if self.mask is None else self.mask[index]
        return replace(self, observed=self.observed[index], mask=mask)


def support(observed: Tensor) -> Tensor:
    """1 where an entry was sent, 0 where the defense left a zero."""
    return (observed != 0).to(observed.dtype)
