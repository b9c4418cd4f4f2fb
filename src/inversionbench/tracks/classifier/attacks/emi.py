"""EMI: one generator trained against several models that know the same people. Reconstruction from a description.

Survey 3.4 (miscellaneous). Wang, Kurz, "Reconstructing Training Data From Diverse ML Models by Ensemble
Inversion", WACV 2022. No code was released and the abstract alone was read: terms as it names them, their
forms from data-free distillation (DAFL, Chen et al., ICCV 2019), weights chosen here.

A conditional generator x = G(z, s), z ~ N(0, I), s uniform over the attacked classes, is trained by Adam while
all models stay frozen. Every model sees the same images; l_k are its logits, t_k its penultimate features:

    L = 1/K sum_k [ CE(l_k(x), s) - activation * mean |t_k(x)| + statistics * R_BN,k ] + adversarial * softplus(-D(x))

The first term makes predictions sharp, the second activations high (a mean over features, since it has no
lower bound), R_BN is that of `_statistics`. With `adversarial` > 0 a critic D is trained beside G to tell its
images from public ones (the auxiliary set). The answer is `restarts` samples G(z, s) of each class.

models: how many of the released models are used, the target first; 0 = all. The scenario says what they are
(`siblings`: other seeds, other architectures, halves of the private images). One step costs `batch` passes of
each model, so rows that differ in `models` are at equal steps; `equal_passes` divides the steps by K instead.

Deviations: rebuilt from a description; labelled classes (a conditional generator), so that neither the one-hot
nor the diversity term of the unlabelled form is needed. Width, steps and batch are for minutes of a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.device import device
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole
from inversionbench.core.seeds import draw_seed, spawn
from inversionbench.latent.rows import rows
from inversionbench.latent.statistics import NormStatistics
from inversionbench.models.base import Trace, channels_last
from inversionbench.models.generators import Critic, Generator

if TYPE_CHECKING:
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox


class Conditional(nn.Module):
    """(z (n, z_dim), class index (n,)) -> images (n, c, h, w) in [0, 1]: the class enters as a one-hot code."""

    def __init__(self, z_dim: int, classes: int, width: int, channels: int, side: int):
        super().__init__()
        self.classes = classes
        self.body = Generator(z_dim + classes, width, channels, side, "nearest")

    def forward(self, z: Tensor, s: Tensor) -> Tensor:
        return self.body(torch.cat([z, F.one_hot(s, self.classes).to(z)], 1))


@dataclass(frozen=True)
class Emi(Attack):
    id: ClassVar[str] = "emi"
    level: ClassVar[str] = "WB"
    needs: ClassVar[str] = "siblings"
    budget: ClassVar[tuple[str, ...]] = ("steps", "batch")

    models: Whole = 0
    steps: Count = 1000
    batch: Count = 64
    equal_passes: bool = False
    z_dim: Count = 64
    width: Count = 16
    rate: Positive = 1e-3
    activation: NonNegative = 0.05
    statistics: NonNegative = 0.0
    adversarial: NonNegative = 0.0
    critic_rate: Positive = 4e-4
    restarts: Count = 4

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        count = self.models or knowledge.models
        if not 1 <= count <= knowledge.models:
            raise ValueError(f"models: expected 1 to {knowledge.models}, as many as were released, got {count}")
        where = device()
        ensemble = [oracle.module(k).to(where) for k in range(count)]
        public = knowledge.public if self.adversarial else None
        generator = self.train(ensemble, knowledge.targets.to(where), tuple(knowledge.shape), public, rng)
        y = rows(torch.arange(len(knowledge.targets)), self.restarts)
        z = torch.randn(len(y), self.z_dim, generator=rng)
        with torch.no_grad():
            images = torch.cat(
                [generator(a.to(where), b.to(where)).cpu() for a, b in zip(z.split(256), y.split(256), strict=True)]
            )
        return Reconstruction(images, knowledge.targets[y], notes={"models": count})

    def train(
        self, ensemble: list[WhiteBox], targets: Tensor, shape: tuple[int, ...], public: Part | None,
        rng: torch.Generator,
    ) -> Conditional:
        """The trained generator, in evaluation mode; its class index i is targets[i]."""
        for model in ensemble:
            model.phase = "train"
        watches = [NormStatistics(model) if self.statistics else None for model in ensemble]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            generator = Conditional(self.z_dim, len(targets), self.width, shape[0], shape[-1])
            critic = Critic(self.width, shape[0], shape[-1], "spectral")
        generator = channels_last(generator).to(targets.device).train()
        optimiser = torch.optim.Adam(generator.parameters(), self.rate)
        critic = channels_last(critic).to(targets.device)
        rival = _Rival(critic, public, self.critic_rate, spawn(rng)) if public is not None else None
        for _ in range(self.steps // len(ensemble) if self.equal_passes else self.steps):
            z = torch.randn(self.batch, self.z_dim, generator=rng).to(targets.device)
            s = torch.randint(len(targets), (self.batch,), generator=rng).to(targets.device)
            x = generator(z, s)
            terms = [self.term(m.trace(x), targets[s], w) for m, w in zip(ensemble, watches, strict=True)]
            loss = torch.stack(terms).mean()
            if rival:
                loss = loss + self.adversarial * F.softplus(-rival.judge(x)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        for model in ensemble:
            model.phase = "search"
        return generator.eval().requires_grad_(False)

    def term(self, seen: Trace, y: Tensor, watch: NormStatistics | None) -> Tensor:
        """One model's part of the loss."""
        loss = F.cross_entropy(seen.logits, y)
        if self.activation and seen.features is not None:
            loss = loss - self.activation * seen.features.abs().mean()
        return loss + self.statistics * watch.take() if watch else loss


class _Rival:
    """A critic that learns to tell public images from made ones, one step each time it is asked."""

    def __init__(self, critic: Critic, public: Part, rate: float, rng: torch.Generator):
        self.critic, self.public, self.rng = critic, public, rng
        self.optimiser = torch.optim.Adam(critic.parameters(), rate, (0.0, 0.99))

    def judge(self, x: Tensor) -> Tensor:
        """Scores (n,) of made images x, after one step of learning from them."""
        index = torch.randint(len(self.public), (len(x),), generator=self.rng)
        real = self.public.images(index.numpy()).to(x.device)
        self.critic.requires_grad_(True)
        loss = F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(x.detach())).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.critic.requires_grad_(False)
        return self.critic(x)
