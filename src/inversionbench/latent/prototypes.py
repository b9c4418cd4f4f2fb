"""DMMIA's two memories in the feature space of the target: f(x), the penultimate features at unit length.

intra (learnable): for each class K prototypes, half of them positive P, half negative N;
    r = a+ / (a+ + a-),    a+ = mean_k exp(f . P_k),  a- = mean_k exp(f . N_k).
inter (momentum): one vector Q_c for each class, no gradient;
    r = exp(f . Q_y) / (exp(f . Q_y) + mean over c != y of exp(f . Q_c)).

Both are per image. The loss of an image is weight * sign * (-log r), sign +1 to come near the class's memory, -1
to leave it. After each step the prototypes of the class learn to attract what was visited, one Adam step on
-log r, and Q_y moves towards the mean feature: m Q_y + (1 - m) f, at its first visit to f itself.

Prototypes are compared at unit length, so that exponents stay in [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.errors import UserError
from inversionbench.models.base import Trace


class Memory:
    """Both memories over all classes, empty until first used; `label`: the class that is being searched.

    prototypes: K of each class, even. weights, signs: (intra, inter). rate: of the prototypes' Adam. A `Term`.
    """

    def __init__(
        self, prototypes: int, weights: tuple[float, float], signs: tuple[int, int], momentum: float, rate: float,
        rng: torch.Generator,
    ):  # fmt: skip
        self.count, self.weights, self.signs = prototypes, weights, signs
        self.momentum, self.rate, self.rng = momentum, rate, rng
        self.label = 0
        self.prototypes: list[Tensor] = []
        self.visited: set[int] = set()
        self.seen: Tensor | None = None

    def __call__(self, x: Tensor, seen: Trace) -> Tensor:
        """The memories' part of the loss of each row: (rows,). Remembers the features for `update`."""
        if seen.features is None:
            raise UserError("dmmia: the target reports no penultimate features; it needs a network that does")
        f = F.normalize(seen.features, dim=1)
        if not self.prototypes:
            self._begin(seen.logits.shape[1], f)
        self.seen = f.detach()
        intra = -log_intra(f, self.prototypes[self.label].detach())
        inter = -log_inter(f, self.centres, self.label)
        return self.weights[0] * self.signs[0] * intra + self.weights[1] * self.signs[1] * inter

    def _begin(self, classes: int, f: Tensor) -> None:
        """Random prototypes, random unit vectors as history; f: features (n, d)."""
        drawn = 0.01 * torch.randn(classes, self.count, f.shape[1], generator=self.rng)
        self.prototypes = [p.to(f.device).requires_grad_(True) for p in drawn]
        self.optimisers = [torch.optim.Adam([p], lr=self.rate) for p in self.prototypes]
        self.centres = F.normalize(torch.randn(classes, f.shape[1], generator=self.rng), dim=1).to(f.device)

    def update(self) -> None:
        """Learn from the features of the last step."""
        assert self.seen is not None
        prototypes = self.prototypes[self.label]
        loss = -log_intra(self.seen, prototypes).mean()
        (prototypes.grad,) = torch.autograd.grad(loss, prototypes)
        self.optimisers[self.label].step()
        mean = self.seen.mean(0)
        old = self.centres[self.label]
        centres = self.centres.clone()  # the old ones may be in use
        centres[self.label] = torch.lerp(mean, old, self.momentum) if self.label in self.visited else mean
        self.centres = centres
        self.visited.add(self.label)


def log_intra(f: Tensor, prototypes: Tensor) -> Tensor:
    """log r of the intra-class memory: f (n, d) at unit length, prototypes (K, d), the first half positive."""
    match = f @ F.normalize(prototypes, dim=1).T
    half = match.shape[1] // 2
    near = match[:, :half].logsumexp(1)
    far = match[:, half:].logsumexp(1)
    return near - torch.logaddexp(near, far)


def log_inter(f: Tensor, centres: Tensor, label: int) -> Tensor:
    """log r of the inter-class memory: f (n, d), centres (classes, d)."""
    match = f @ centres.T
    own = match[:, label]
    others = torch.cat([match[:, :label], match[:, label + 1 :]], dim=1)
    mean = others.logsumexp(1) - torch.log(torch.tensor(float(others.shape[1])))
    return own - torch.logaddexp(own, mean)
