"""VMI: learn, for each class, a distribution over latents that stays near the prior's own.

Survey 3.2 (generative). Wang, Fu, Li, Khisti, Zemel, Makhzani, "Variational Model Inversion Attacks", NeurIPS
2021. With z = F(e), e ~ N(0, I), minimise for each class y

    E_e [ -log softmax(T(G(F(e))))_y ] + kl * KL( q(z) || N(0, I) )

which bounds the divergence from the power posterior p(x) p_T(y|x)^(1/kl): a larger kl buys diversity and
realism with accuracy. Parts in `_flows`. family: `flow` (additive couplings between gains, as published) or
`normal` (mean and triangular factor).

base `dcgan`: one distribution over z. base `style`: one per synthesis layer, all fed the same e, w_l =
mapping(z_l), KL the mean over layers (layers share e, so it is a surrogate of the joint one); the last `free`
layers are left to random w, which belong to nobody.

Parameters as published: kl 1e-3, steps 10, hidden 100, SGD 1e-4 with momentum 0.9, batch 64; 20 epochs of 157
iterations. batch: samples per class and iteration, one pass each. restarts: samples per class in the answer,
at most batch. keep_at: iterations at which answers are drawn; curves stand at passes per answer.

Deviations: one level of the flow (the published one has three, for image-shaped latents) and one hidden layer;
gains start at 1 (data-dependent initialisation by standard normal noise gives that); the published choice of
layers 0 to 9 leaves none free at 64 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole
from inversionbench.latent.flows import Distribution, Flow, Normal, divergence
from inversionbench.latent.losses import cross_entropy
from inversionbench.latent.rows import device_of, rows
from inversionbench.latent.search import CHUNK, Latent, in_blocks
from inversionbench.tracks.classifier.attacks.kedmi import Drawn

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.prior import Prior
    from inversionbench.models.base import Trace
    from inversionbench.oracle.base import Oracle


class Variational:
    """Distributions of a block of classes, `layers` for each, all layers fed the same noise.

    `draw` gives (classes * batch, layers, z_dim), class by class, and leaves the divergence of these samples,
    meaned over layers, in `divergence` (classes * batch,).
    """

    def __init__(self, q: Distribution, classes: int, layers: int, z_dim: int, batch: int, rng: torch.Generator):
        self.q, self.shape, self.layers, self.rng = q, (classes, batch, z_dim), layers, rng
        self.parameters = q.parameters
        self.where = q.parameters[0].device

    def draw(self) -> Tensor:
        e = torch.randn(self.shape, generator=self.rng).to(self.where).repeat_interleave(self.layers, 0)
        z, log_det = self.q(e)
        by_layer = divergence(e, z, log_det).unflatten(0, (-1, self.layers))
        self.divergence = by_layer.mean(1).flatten()
        return z.unflatten(0, (-1, self.layers)).transpose(1, 2).flatten(0, 1)

    def some(self, count: int) -> Tensor:
        """The first `count` samples of each class of a draw: (classes * count, layers, z_dim)."""
        z = self.draw().unflatten(0, self.shape[:2])
        return z[:, :count].flatten(0, 1)

    def project(self) -> None:
        """Nothing bounds a distribution but its divergence."""


@dataclass(frozen=True)
class Vmi(Attack):
    id: ClassVar[str] = "vmi"
    level: ClassVar[str] = "WB"
    prior: ClassVar[Mapping[str, tuple[str, ...]]] = {"dcgan": ("dcgan",), "style": ("style",)}
    budget: ClassVar[tuple[str, ...]] = ("iterations", "batch")

    base: Literal["dcgan", "style"] = "dcgan"
    family: Literal["flow", "normal"] = "flow"
    kl: NonNegative = 1e-3
    steps: Count = 10
    hidden: Count = 100
    free: Whole = 0
    iterations: Count = 3140
    batch: Count = 64
    optimiser: Literal["sgd", "adam"] = "sgd"
    rate: Positive = 1e-4
    restarts: Count = 5
    keep_at: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.restarts <= self.batch:
            raise ValueError(f"restarts: expected 1 to batch ({self.batch}), got {self.restarts}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior, targets = knowledge.prior, knowledge.targets
        where = device_of(prior)
        target = oracle.module().to(where)
        layers = self.layers(prior)
        ends: list[Tensor] = []

        def block(part: slice, labels: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
            latent = self.latent(len(labels), layers, prior.z_dim, where, rng)
            found = self.search(prior, target, latent, rng).run(latent, rows(labels, self.batch).to(where))
            ends.append(latent.divergence.detach().cpu())
            return found

        images, kept = in_blocks(targets, block, max(1, CHUNK // self.batch))
        passes = self.batch / self.restarts
        checkpoints = [(round(step * passes), at) for step, at in [*kept, (self.iterations, images)]]
        notes = {"divergence": float(torch.cat(ends).mean())}
        return Reconstruction(images, rows(targets, self.restarts), checkpoints=checkpoints, notes=notes)

    def layers(self, prior: Any) -> int:
        """Distributions per class."""
        if self.base == "dcgan":
            return 1
        if not 0 <= self.free < prior.style.num_ws:
            raise ValueError(f"free: expected fewer than the {prior.style.num_ws} layers, got {self.free}")
        return prior.style.num_ws - self.free

    def latent(
        self, classes: int, layers: int, z_dim: int, where: torch.device, rng: torch.Generator
    ) -> Variational:
        """Fresh distributions."""
        make = partial(Flow, steps=self.steps, hidden=self.hidden) if self.family == "flow" else Normal
        return Variational(make(classes * layers, z_dim, rng, where), classes, layers, z_dim, self.batch, rng)

    def search(self, prior: Prior, target: torch.nn.Module, latent: Variational, rng: torch.Generator) -> Drawn:
        """This attack's setting of the common loop, for one block of classes."""

        def divergence_of(x: Tensor, seen: Trace) -> Tensor:
            return self.kl * latent.divergence

        def show(which: Latent) -> Tensor:
            return latent.some(self.restarts)

        sgd = partial(torch.optim.SGD, lr=self.rate, momentum=0.9)
        return Drawn(
            generator=partial(self.make, prior, rng), target=target, identity=cross_entropy,  # type: ignore[arg-type]
            optimiser=sgd if self.optimiser == "sgd" else partial(torch.optim.Adam, lr=self.rate),
            iterations=self.iterations, terms=(divergence_of,), reference=self.batch, show=show,
            keep_at=[i for i in self.keep_at if i < self.iterations],
        )

    def make(self, prior: Any, rng: torch.Generator, z: Tensor) -> Tensor:
        """Images of latents z (n, layers, z_dim)."""
        if self.base == "dcgan":
            return prior.generator(z[:, 0])
        from inversionbench.models.style import to_pixels

        style = prior.style
        ws = style.style(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        if self.free:
            others = style.style(prior.sample(len(z), rng).to(z.device))
            ws = torch.cat([ws, others[:, None].expand(-1, self.free, -1)], 1)
        return to_pixels(style.synthesis(ws, "const")).clamp(0, 1)
