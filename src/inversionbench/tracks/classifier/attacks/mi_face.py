"""MI-Face: descend from a blank image to one of which the target is sure. No prior, no public data.

Survey 3.3 (optimisation on the output). Fredrikson, Jha, Ristenpart, "Model Inversion Attacks that Exploit
Confidence Information and Basic Countermeasures", CCS 2015.

Cost c(x) = 1 - softmax(T(x))_y. x_i = Process(x_{i-1} - rate * grad c(x_{i-1})), Process clamping to [0, 1].
A row stops when c is no better than its worst in the last `patience` steps, or when the confidence reaches
`goal` (as printed in the paper the goal would be a cost and end every run at once), or after `iterations`.
The answer is the best iterate.

access WB: the gradient by automatic differentiation, one pass per row and step. access BB-S: the gradient
estimated from scores by differences of size `difference`: along every coordinate (`directions` 0, the paper's
form: one query per pixel value and step), or along that many random directions, each asked forwards and
backwards, drawn as noise of `grid` x `grid` cells (0 = single pixels). Rounded scores make these differences
0: this is the attack that `confidence_rounding` was made against. A row whose estimate is 0 stands still,
draws again, and gives up by the window.

Parameters: iterations 5000 (unverified), patience 100, goal 0.99, rate 0.1 as published; start: zero, or
grey (0.5); spread: standard deviation of noise on the start, for restarts; normalise: divides the gradient by
its norm, which convolutional networks need. Deviations: the auxiliary term is 0, as in the paper's face
experiments; no denoising between steps (the paper's form for its autoencoder model).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.device import device
from inversionbench.core.ranges import Count, NonNegative, Positive, Share, Whole
from inversionbench.latent.losses import one_minus_confidence
from inversionbench.latent.rows import rows

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle

Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # images, classes -> cost (rows,), gradient
STARTS = {"zero": 0.0, "grey": 0.5}


@dataclass(frozen=True)
class MiFace(Attack):
    id: ClassVar[str] = "mi_face"
    level: ClassVar[tuple[str, ...]] = ("WB", "BB-S")
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    access: Literal["WB", "BB-S"] = "WB"
    iterations: Count = 5000
    patience: Count = 100
    goal: Share = 0.99
    rate: Positive = 0.1
    normalise: bool = False
    start: Literal["zero", "grey"] = "zero"
    spread: NonNegative = 0.0
    clamp: bool = True
    restarts: Count = 1
    difference: NonNegative = 0.01
    directions: Whole = 0
    grid: Whole = 0
    keep_at: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        if self.access == "BB-S" and not self.clamp:
            raise ValueError("clamp: scores are answered for images in [0, 1] only; set clamp to true")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        y = rows(knowledge.targets, self.restarts)
        x = torch.full((len(y), *knowledge.shape), STARTS[self.start])
        if self.spread:
            x = x + self.spread * torch.randn(x.shape, generator=rng)
        slope = by_passes(oracle.module()) if self.access == "WB" else self._by_scores(oracle, rng)
        best, cost, kept = self.descend(x.clamp(0, 1) if self.clamp else x, y, slope)
        per_step = 1 if self.access == "WB" else 1 + (2 * self.directions or x[0].numel())
        return Reconstruction(
            best.clamp(0, 1), y, scores=1 - cost[:, None],
            checkpoints=[(step * per_step, images.clamp(0, 1)) for step, images in kept],
        )

    def descend(self, x: Tensor, y: Tensor, slope: Slope) -> tuple[Tensor, Tensor, list[tuple[int, Tensor]]]:
        """Best iterates (rows, ...), their cost (rows,), and the best so far after each step of `keep_at`."""
        x, best = x.clone(), x.clone()
        kept: dict[int, Tensor] = {}
        lowest = torch.full((len(y),), torch.inf)
        history = torch.full((len(y), max(self.patience, 1)), torch.inf)
        going = torch.arange(len(y))
        for step in range(self.iterations + 1):
            cost, gradient = slope(x[going], y[going])
            better = cost < lowest[going]
            best[going[better]], lowest[going[better]] = x[going[better]], cost[better]
            if step in self.keep_at:
                kept[step] = best.clone()
            stalled = cost >= history[going].max(1).values
            history[going, step % history.shape[1]] = cost
            keep = ~(stalled | (cost <= 1 - self.goal))
            going, gradient = going[keep], gradient[keep]
            if not len(going) or step == self.iterations:
                break
            x[going] = self._process(x[going] - self.rate * self._scaled(gradient))
        late = {step: best for step in self.keep_at if step < self.iterations and step not in kept}
        return best, lowest, sorted({**kept, **late, self.iterations: best}.items())

    def _scaled(self, gradient: Tensor) -> Tensor:
        if not self.normalise:
            return gradient
        return gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (gradient.dim() - 1))

    def _process(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1) if self.clamp else x

    def _by_scores(self, oracle: Oracle, rng: torch.Generator) -> Slope:
        """Cost and estimated gradient from scores alone."""

        def cost_of(x: Tensor, y: Tensor) -> Tensor:
            return 1 - oracle.scores(x).gather(1, y[:, None])[:, 0]

        def slope(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            cost = cost_of(x, y)
            if self.directions == 0:
                return cost, self._coordinates(x, y, cost, cost_of)
            gradient = torch.zeros_like(x)
            for _ in range(self.directions):
                u = self._direction(x, rng)
                ahead = (x + self.difference * u).clamp(0, 1)
                behind = (x - self.difference * u).clamp(0, 1)
                change = cost_of(torch.cat([ahead, behind]), y.repeat(2)).view(2, -1)
                gradient += ((change[0] - change[1]) / (2 * self.difference)).view(-1, 1, 1, 1) * u
            return cost, gradient / self.directions

        return slope

    def _direction(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Standard normal noise, constant on the cells of the grid."""
        if not self.grid:
            return torch.randn(x.shape, generator=rng)
        cells = torch.randn(*x.shape[:2], self.grid, self.grid, generator=rng)
        return F.interpolate(cells, x.shape[-2:], mode="nearest")

    def _coordinates(self, x: Tensor, y: Tensor, cost: Tensor, cost_of: Callable[..., Tensor]) -> Tensor:
        """One difference per pixel value, away from the nearer border."""
        flat = x.flatten(1)
        gradient = torch.empty_like(flat)
        for i in range(flat.shape[1]):
            h = torch.where(flat[:, i] <= 0.5, self.difference, -self.difference)
            moved = flat.clone()
            moved[:, i] += h
            gradient[:, i] = (cost_of(moved.view_as(x), y) - cost) / h
        return gradient.view_as(x)


def by_passes(target: torch.nn.Module) -> Slope:
    """Cost and gradient through a white-box module."""
    where = device()
    target = target.to(where)

    def slope(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().to(where, copy=True).requires_grad_(True)
        cost = one_minus_confidence(target(x), y.to(where))
        (gradient,) = torch.autograd.grad(cost.sum(), x)
        return cost.detach().cpu(), gradient.cpu()

    return slope
