"""KEDMI: a distribution of latents for each class, under a prior that was taught by the target's soft labels.

Survey 3.2 (generative). Chen, Kahla, Jia, Qi, "Knowledge-Enriched Distributional Model Inversion Attacks",
ICCV 2021. Stage one is the prior `kedmi_gan`. Stage two, for each class y, with z = mu + sigma e, e ~ N(0, I):

    minimise over mu, sigma   E_e [ realism * -log D(G(z)) + identity_weight * -log softmax(T(G(z)))_y ]

one e per step, Adam, from mu = 0 and log sigma^2 = log_variance. Nothing holds sigma up; its mean at the end is
among the notes. Answers: `restarts` draws per class (answer: draws, as published) or one image of mu (mean).

The paper's two switches: base `kedmi_gan` or `dcgan` (P1 and its critic as realism) and latent `gaussian` or
`point` (from random latents, by the momentum of GMI; base dcgan and point together are GMI).

Parameters: iterations, rate, identity_weight, restarts, log_variance 1 as published. box: every sample is
clamped to [-box, box] before the generator; 0, as published, clamps nothing (the released loop clamps after
use), LOMMA's fork has 1. momentum belongs to `point`. Equal passes: one Gaussian costs one pass per class and
step, a point one per image and step. keep_at: iterations at which answers are drawn, for curves; these stand at
passes per answer.

As published the search leaves the prior (sigma starts at 1.65 and mu is free): images turn white or black, and
the target is sure of them. Set box and a smaller log_variance where few steps are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, ShareBelowOne
from inversionbench.latent.rows import device_of, rows
from inversionbench.latent.search import Latent, Search, in_blocks
from inversionbench.tracks.classifier.attacks.gmi import Gmi

if TYPE_CHECKING:
    from inversionbench.core.prior import Prior
    from inversionbench.oracle.base import Oracle


class Gaussian:
    """One diagonal normal distribution of latents per row. mean, log_variance: (rows, z_dim)."""

    def __init__(self, mean: Tensor, log_variance: float, box: float, rng: torch.Generator):
        self.mean = mean.clone().requires_grad_(True)
        self.log_variance = torch.full_like(mean, log_variance).requires_grad_(True)
        self.parameters = [self.mean, self.log_variance]
        self.box, self.rng = box, rng

    def draw(self) -> Tensor:
        """One sample per row."""
        return self.at(torch.randn(self.mean.shape, generator=self.rng).to(self.mean.device))

    def at(self, e: Tensor) -> Tensor:
        """mu + sigma e, in the box; e: (..., rows, z_dim)."""
        z = self.mean + (self.log_variance / 2).exp() * e
        return z.clamp(-self.box, self.box) if self.box else z

    def several(self, count: int) -> Tensor:
        """count samples of each row, row by row: (rows * count, z_dim)."""
        e = torch.randn(count, *self.mean.shape, generator=self.rng).to(self.mean.device)
        return self.at(e).transpose(0, 1).flatten(0, 1)

    def project(self) -> None:
        """Samples are clamped, parameters are free."""


@dataclass(frozen=True)
class Drawn(Search):
    """The common loop, whose images are what `show` makes of the latent."""

    show: Callable[[Latent], Tensor] = lambda latent: latent.draw()

    @torch.no_grad()
    def images(self, latent: Latent) -> Tensor:
        return torch.cat([self.generator(z).cpu() for z in self.show(latent).split(256)])


@dataclass(frozen=True)
class Kedmi(Attack):
    id: ClassVar[str] = "kedmi"
    level: ClassVar[str] = "WB"
    prior: ClassVar[Mapping[str, tuple[str, ...]]] = {"kedmi_gan": ("kedmi_gan",), "dcgan": ("dcgan",)}
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    base: Literal["kedmi_gan", "dcgan"] = "kedmi_gan"
    latent: Literal["gaussian", "point"] = "gaussian"
    iterations: Count = 2400
    rate: Positive = 0.02
    momentum: ShareBelowOne = 0.9
    identity_weight: NonNegative = 100.0
    realism: NonNegative = 1.0
    log_variance: float = 1.0
    box: NonNegative = 0.0
    restarts: Count = 5
    answer: Literal["draws", "mean"] = "draws"
    keep_at: tuple[Count, ...] = ()

    @property
    def point(self) -> Gmi:
        """The search of single latents, whose every part is GMI's."""
        return Gmi(
            iterations=self.iterations, rate=self.rate, momentum=self.momentum, identity_weight=self.identity_weight,
            realism=self.realism, box=self.box, restarts=self.restarts, keep_at=self.keep_at,
        )

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = knowledge.prior
        target = oracle.module().to(device_of(prior))
        return self.solve(self.search(prior, target), prior, knowledge.targets, rng)

    def search(self, prior: Prior, target: torch.nn.Module) -> Search:
        """This attack's setting of the common loop."""
        search = self.point.search(prior, target)
        if self.latent == "point":
            return search
        parts = {name: getattr(search, name) for name in search.__dataclass_fields__}
        optimiser = partial(torch.optim.Adam, lr=self.rate)
        return Drawn(**{**parts, "optimiser": optimiser, "reference": 1}, show=self._answer)

    def _answer(self, latent: Latent) -> Tensor:
        assert isinstance(latent, Gaussian)
        return latent.at(torch.zeros_like(latent.mean)) if self.answer == "mean" else latent.several(self.restarts)

    def solve(self, search: Search, prior: Prior, targets: Tensor, rng: torch.Generator) -> Reconstruction:
        """Search for every class of targets (n,), by this attack's setting or a changed one."""
        if self.latent == "point":
            return self.point.solve(search, prior, targets, rng)
        where, sigma = device_of(prior), []

        def block(part: slice, labels: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
            start = torch.zeros(len(labels), prior.z_dim, device=where)
            latent = Gaussian(start, self.log_variance, self.box, rng)
            found = search.run(latent, labels.to(where))
            sigma.append((latent.log_variance.detach() / 2).exp().mean(1).cpu())
            return found

        images, kept = in_blocks(targets, block)
        y = targets if self.answer == "mean" else rows(targets, self.restarts)
        each = len(y) // len(targets)  # draws of a class share its passes
        checkpoints = [(-(-step // each), at) for step, at in [*kept, (self.iterations, images)]]
        notes = {"mean_sigma": float(torch.cat(sigma).mean())}
        return Reconstruction(images, y, checkpoints=checkpoints, notes=notes)
