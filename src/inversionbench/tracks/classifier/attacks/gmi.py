"""GMI: search the latent space of a public GAN for what the target calls the class, and the critic real.

Survey 3.2 (generative). Zhang, Jia, Pei, Wang, Li, Song, "The Secret Revealer: Generative Model-Inversion
Attacks Against Deep Neural Networks", CVPR 2020.

For each row minimise  L(z) = -D(G(z)) * realism + identity_weight * (-log softmax(T(G(z)))_y)  from
z ~ N(0, I), by the momentum of `_search.Momentum`, z clamped to [-box, box] after each step (starting values
outside are clipped at the first: intended). The prior is P1, trained before and without the target.

Parameters: iterations, rate, momentum, box, restarts of each class, identity_weight as published. identity:
the paper's cross_entropy, or margin | logit | poincare, which an attacker chooses who knows that the target
masks the gradient of the first. reference: the published losses are means over a batch of 60 classes; here
they are sums over rows divided by this fixed number, the same step for any number of rows. select: "all"
restarts (as later papers report it) or the "best" of each class by the target's logit. keep_at: iterations
at which the current images are kept, for curves. adapt: the attacker knows the defense and searches past what misleads
his gradient, through `draws` views at each step (latent/adapt.py). draws alone: the gradient is averaged over as many
passes, for targets that answer with noise.

Deviations: no hint image (blurred or masked photograph) and so no completion network; the diversity term of
the GAN is left out as in the released code for faces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from inversionbench.core.attack import Attack, Identity, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, ShareBelowOne, Whole
from inversionbench.core.seeds import spawn
from inversionbench.latent.adapt import knowing
from inversionbench.latent.losses import IDENTITY
from inversionbench.latent.rows import best_of_class, device_of, rows
from inversionbench.latent.search import Momentum, Point, Search, as_is, in_blocks

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.prior import Prior
    from inversionbench.models.base import Trace
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Gmi(Attack):
    id: ClassVar[str] = "gmi"
    level: ClassVar[str] = "WB"
    prior: ClassVar[str] = "dcgan"
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    iterations: Count = 1500
    rate: Positive = 0.02
    momentum: ShareBelowOne = 0.9
    identity_weight: NonNegative = 100.0
    realism: NonNegative = 1.0
    box: NonNegative = 1.0
    restarts: Count = 5
    identity: Identity = "cross_entropy"
    reference: Whole = 60
    select: Literal["all", "best"] = "all"
    keep_at: tuple[Count, ...] = ()
    adapt: bool = False
    draws: Count = 1

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = knowledge.prior
        target = oracle.module().to(device_of(prior))
        search = self.search(prior, target)
        if self.adapt:
            search = replace(search, views=knowing(target, knowledge.defense, self.draws, spawn(rng)))
        elif self.draws > 1:
            search = replace(search, views=lambda x: [x] * self.draws)
        found = self.solve(search, prior, knowledge.targets, rng)
        passes = 1 if search.views is as_is else self.draws
        return replace(found, checkpoints=[(passes * step, images) for step, images in found.checkpoints])

    def solve(self, search: Search, prior: Prior, targets: Tensor, rng: torch.Generator) -> Reconstruction:
        """Search from random latents for every class of targets (n,), by this attack's setting or a changed one."""
        where, target = device_of(prior), search.target
        y = rows(targets, self.restarts)
        z = prior.sample(len(y), rng)

        def block(part: slice, labels: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
            return search.run(Point(z[part].to(where), self.box), labels.to(where))

        images, kept = in_blocks(y, block)
        kept.append((self.iterations, images))
        if self.select == "best":
            target.phase = "select"
            with torch.no_grad():
                logits = torch.cat([target(part.to(where)).cpu() for part in images.split(256)])
            keep = best_of_class(logits.gather(1, y[:, None])[:, 0], self.restarts)
            images, y, kept = images[keep], y[keep], []  # the choice looks at the last images only
        return Reconstruction(images, y, checkpoints=kept)

    def search(self, prior: Prior, target: torch.nn.Module) -> Search:
        """This attack's setting of the common loop."""
        if self.realism and prior.critic is None:
            raise ValueError("the realism term needs a prior with a critic; set realism to 0 for one without")

        def realism(x: Tensor, seen: Trace) -> Tensor:
            assert prior.critic is not None
            return -self.realism * prior.critic(x)

        return Search(
            generator=prior.generator, target=target, identity=IDENTITY[self.identity],  # type: ignore[arg-type]
            optimiser=partial(Momentum, rate=self.rate, momentum=self.momentum), iterations=self.iterations,
            weight=self.identity_weight, terms=(realism,) if self.realism else (),
            reference=self.reference, keep_at=[i for i in self.keep_at if i < self.iterations],
        )
