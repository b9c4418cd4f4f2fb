"""PLG-MI: search the latents of a conditional GAN with a loss that never saturates, on augmented views.

Survey 3.2 (generative). Yuan, Chen, Zhang, Zhang, Yu, Zhang, "Pseudo Label-Guided Model Inversion Attack via
Conditional GAN", AAAI 2023. The prior `plg_gan` already makes the class; for each row, from z ~ N(0, I):

    minimise over z   sum over `views` random views A of  max_{j != y} o_j - o_y,   o = T(A(G(z, y)))

by Adam, the generator in evaluation mode. A: crop of 80 to 100 % of the area, mirror image, rotation by up to
5 degrees, brightness and contrast by up to a fifth. Every view is one pass of the target.

Parameters as published: iterations 600, rate 0.1, views 2, restarts 5, identity margin (or another of
`_losses`), no realism term, box 0 (none: z is free). With few images per class and no box the search leaves
what the prior was trained on: the evaluators' top-1 rises and the distance to private images with it; a box
holds it. The mean over views replaces the sum, which Adam does not notice. keep_at: iterations at which images
are kept, for curves; these stand at `views` passes per iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from inversionbench.core.attack import Attack, Identity, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole
from inversionbench.latent.losses import IDENTITY
from inversionbench.latent.rows import device_of, rows
from inversionbench.latent.search import Point, Search, in_blocks
from inversionbench.latent.views import Views

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.oracle.base import Oracle
    from inversionbench.priors.plg_gan import ConditionalPrior

VIEWS = Views()


@dataclass(frozen=True)
class PlgMi(Attack):
    id: ClassVar[str] = "plg_mi"
    level: ClassVar[str] = "WB"
    prior: ClassVar[str] = "plg_gan"
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    iterations: Count = 600
    rate: Positive = 0.1
    views: Whole = 2
    restarts: Count = 5
    identity: Identity = "margin"
    box: NonNegative = 0.0
    keep_at: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"views: expected at least 1, got {self.views}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = knowledge.prior
        target = oracle.module().to(device_of(prior))
        return self.solve(self.search(prior, target), prior, knowledge.targets, rng)

    def search(self, prior: ConditionalPrior, target: torch.nn.Module) -> Search:
        """This attack's setting of the common loop, but for the class of the generator and the draws of views."""
        return Search(
            generator=prior.generator, target=target, identity=IDENTITY[self.identity],  # type: ignore[arg-type]
            optimiser=partial(torch.optim.Adam, lr=self.rate), iterations=self.iterations,
            keep_at=[i for i in self.keep_at if i < self.iterations],
        )

    def solve(
        self, search: Search, prior: ConditionalPrior, targets: Tensor, rng: torch.Generator
    ) -> Reconstruction:
        """Search for every class of targets (n,), by this attack's setting or a changed one."""
        where = device_of(prior)
        y = rows(targets, self.restarts)
        z = prior.sample(len(y), rng)

        def block(part: slice, labels: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
            labels = labels.to(where)
            own = replace(
                search, generator=prior.of(labels), views=partial(VIEWS.several, rng=rng, count=self.views)
            )
            return own.run(Point(z[part].to(where), self.box), labels)

        images, kept = in_blocks(y, block)
        checkpoints = [(self.views * step, at) for step, at in [(0, self._start(prior, z, y)), *kept]]
        return Reconstruction(images, y, checkpoints=[*checkpoints, (self.views * self.iterations, images)])

    @torch.no_grad()
    def _start(self, prior: ConditionalPrior, z: Tensor, y: Tensor) -> Tensor:
        """Images of random latents of the right classes: what the prior gives away without a search."""
        where = device_of(prior)
        z = z.clamp(-self.box, self.box) if self.box else z
        pairs = zip(z.split(256), y.split(256))
        return torch.cat([prior.of(b.to(where))(a.to(where)).cpu() for a, b in pairs])
