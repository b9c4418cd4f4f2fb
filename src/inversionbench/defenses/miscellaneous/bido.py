"""BiDO: penalise what every hidden layer knows of the input, reward what it knows of the label.

Survey 4.7. Peng, Liu, Zhang, Lan, Ye, Liu, Han, "Bilateral Dependency Optimization: Defending Against
Model-inversion Attacks", KDD 2022.

    L = CE(o, y) + sum over hidden layers j of [ a1 D(X, Z_j) - a2 D(Z_j, Y) ],  a1 = strength, a2 = ratio a1

D is computed on the batch, from centred kernel matrices K~ = H K H: Gaussian kernels for X and Z,
exp(-|u - v|^2 / (2 sigma^2 d)) with d the dimension of u (without it K saturates), linear for one-hot Y.
measure `hsic`: tr(R_U R_V) with R = K~ (K~ + eps m I)^-1, the normalised form that the authors' code uses;
`coco`: sqrt(|K~_U K~_V|) / m with the largest singular value (the paper's norm; the code takes the Frobenius
norm, an upper bound). Layers: all blocks that the model reports, logits left out.

Published: (a1, a2) = (0.05, 0.5) for faces with hsic, (1, 50) for digits with coco; sigma 5, eps 1e-5.
Deviation: float64, because with nearly equal activations the published ridge is singular in
float32. Without the label term (ratio 0) the network collapses: the defense is the balance of both. On few
classes the label term of the published ratio outweighs the other: D(X, Z) rises with D(Z, Y); at ratio 2 it falls as
the name says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import NonNegative, Positive

if TYPE_CHECKING:
    from inversionbench.core.defense import Step


@dataclass(frozen=True)
class Bido(Defense):
    """strength: a1. ratio: a2 / a1."""

    id: ClassVar[str] = "bido"
    hooks: ClassVar[frozenset[str]] = frozenset({"loss"})
    # at the published ratio it is the label term that moves: D(X, Z) rises with it (see above)
    effect: ClassVar[tuple[str, str, float] | None] = ("effect_label_gap", "lower", 0.85)

    strength: NonNegative = 0.0
    ratio: NonNegative = 10.0
    measure: str = "hsic"
    sigma: Positive = 5.0
    eps: Positive = 1e-5

    def __post_init__(self) -> None:
        if self.measure not in ("hsic", "coco"):
            raise ValueError(f"measure: expected hsic or coco, got '{self.measure}'")

    def loss(self, ctx: Step) -> Tensor:
        plain = super().loss(ctx)
        if self.strength == 0:
            return plain
        if not ctx.hidden:
            raise ValueError(f"bido needs hidden layers, but {type(ctx.model).__name__} reports none: "
                             "take a model with blocks (any but softmax)")
        label, image = self.dependences(ctx.x, ctx.y, ctx.hidden, ctx.classes)
        return plain + self.strength * (image.sum() - self.ratio * label.sum()).to(plain)

    def dependences(self, x: Tensor, y: Tensor, hidden: Any, classes: int) -> tuple[Tensor, Tensor]:
        """D(Z_j, Y) and D(X, Z_j) for every hidden layer: two tensors (layers,)."""
        onehot = F.one_hot(y, classes).double() if y.dim() == 1 else y.double()
        kx, ky = gaussian(x, self.sigma), onehot @ onehot.T
        kz = [gaussian(z, self.sigma) for z in hidden.values()]
        return self._against(ky, kz), self._against(kx, kz)

    def _against(self, k: Tensor, others: list[Tensor]) -> Tensor:
        if self.measure == "coco":
            return torch.stack([coco(k, other) for other in others])
        return torch.stack([hsic(k, other, self.eps) for other in others])

    def public_knowledge(self) -> dict[str, Any]:
        return {"measure": self.measure, "a1": self.strength, "a2": self.ratio * self.strength}


def gaussian(u: Tensor, sigma: float) -> Tensor:
    """Kernel matrix (m, m) in float64 of u: (m, ...), the squared distance divided by the dimension."""
    flat = u.flatten(1).double()
    square = flat.square().sum(1)
    gap = (square[:, None] + square[None] - 2 * flat @ flat.T).clamp_min(0)
    return torch.exp(-gap / (2 * sigma**2 * flat.shape[1]))


def centred(k: Tensor) -> Tensor:
    """H K H with H = I - 1/m.

    >>> centred(torch.ones(3, 3)).abs().max()
    tensor(0.)
    """
    return k - k.mean(0, keepdim=True) - k.mean(1, keepdim=True) + k.mean()


def hsic(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """Normalised HSIC of two kernel matrices (m, m): tr(R_a R_b), from 0 (independent) to m - 1."""
    m = len(a)
    ridge = eps * m * torch.eye(m, dtype=a.dtype, device=a.device)

    def shrunk(k: Tensor) -> Tensor:
        c = centred(k)
        return torch.linalg.solve(c + ridge, c)  # symmetric: both factors share their eigenvectors

    return (shrunk(a) * shrunk(b).T).sum()


def coco(a: Tensor, b: Tensor) -> Tensor:
    """Constrained covariance of two kernel matrices (m, m): sqrt(largest singular value of K~_a K~_b) / m."""
    return torch.linalg.matrix_norm(centred(a) @ centred(b), 2).clamp_min(1e-24).sqrt() / len(a)
