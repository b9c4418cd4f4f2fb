"""Patch-MI: for each class a GAN whose critic sees patches only, so that unlike public images still help.

Survey 3.2 (generative). Jang, Lyu, Yang, "Patch-MI: Enhancing Model Inversion Attacks via Patch-Based
Reconstruction", arXiv 2312.07040 (released code: PatAtt_v4). The generator is the answer: for class y, with
public images x, b = binary cross entropy with logits and views A(x) (the image and `views` random warps),

    L_D = b(D(x), 1 - smoothing) + b(D(G(z)), 0)
    L_G = b(D(G(z)), 1) + identity_weight * mean over views of CE(T(A(G(z))), y)

D averages one logit per patch (`models.patch`): what G must match are the public set's patches, in whatever
arrangement the target calls y. Adam (0.5, 0.999), one step each. `restarts` samples of each generator answer.

base: "scratch", as published, or "dcgan": every generator starts from that prior's, for minutes of a CPU.
patch 0: a critic of whole images (the paper's ablation). views 0: the target sees the images alone (the other).
scale, turn, flip: of the warps. steps: of G, per class (30 epochs of 60,000 images in batches of 64 are 28,000).
Patch 6, stride 2, padding 2, critic_width 256, smoothing 0.6 and identity_weight 30 are those of MNIST; colour
has 8, 4, 0, 512, 0.7, 50; CelebA at 128 pixels 24, 13, 13, 1536 and smoothing 0.9999 (in effect no critic).

Deviations: no code network (off or inactive in three of the four released settings); nearest upsampling;
one warp per view instead of rotation and crop in a row; edges repeated instead of filled with black.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.device import device
from inversionbench.core.ranges import Count, NonNegative, Positive, PositiveShare, Share, Whole
from inversionbench.core.seeds import draw_seed
from inversionbench.latent.rows import rows
from inversionbench.latent.views import Views
from inversionbench.models.base import channels_last
from inversionbench.models.generators import Generator
from inversionbench.models.patch import PatchCritic

if TYPE_CHECKING:
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox


@dataclass(frozen=True)
class PatchMi(Attack):
    id: ClassVar[str] = "patch_mi"
    level: ClassVar[str] = "WB"
    prior: ClassVar[Mapping[str, tuple[str, ...]]] = {"scratch": (), "dcgan": ("dcgan",)}
    budget: ClassVar[tuple[str, ...]] = ("steps", "batch")

    base: Literal["scratch", "dcgan"] = "scratch"
    steps: Count = 28000
    batch: Count = 64
    rate: Positive = 1e-3
    z_dim: Count = 100
    width: Count = 64
    patch: Count = 6
    stride: Count = 2
    padding: Whole = 2
    critic_width: Count = 256
    norm: bool = True
    identity_weight: NonNegative = 30.0
    smoothing: NonNegative = 0.6
    views: Whole = 1
    scale: tuple[PositiveShare, PositiveShare] = (0.85, 1.0)
    turn: NonNegative = 20.0
    flip: Share = 0.0
    restarts: Count = 4

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing: expected at least 0 and below 1, got {self.smoothing}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        where = device()
        target = oracle.module().to(where)
        target.phase = "train"
        start = knowledge.prior.generator if self.base == "dcgan" else None
        z_dim = knowledge.prior.z_dim if self.base == "dcgan" else self.z_dim
        images, spreads = [], []
        for y in knowledge.targets.tolist():
            generator = self.train(y, target, start, z_dim, tuple(knowledge.shape), knowledge.public, rng)
            with torch.no_grad():
                z = torch.randn(max(self.restarts, 32), z_dim, generator=rng).to(where)
                made = generator(z).cpu()
            spreads.append(float(made.std(0).mean()))
            images.append(made[: self.restarts])
        notes = {"spread": sum(spreads) / len(spreads)}  # a collapsed generator has none
        return Reconstruction(torch.cat(images), rows(knowledge.targets, self.restarts), notes=notes)

    def train(
        self, y: int, target: WhiteBox, start: nn.Module | None, z_dim: int, shape: tuple[int, ...], public: Part,
        rng: torch.Generator,
    ) -> nn.Module:
        """The generator of class y, in evaluation mode."""
        generator, critic = self.networks(start, z_dim, shape, rng)
        generator, critic = (channels_last(net).to(device()).train() for net in (generator, critic))
        betas = (0.5, 0.999)
        makers = torch.optim.Adam(generator.parameters(), self.rate, betas)
        judges = torch.optim.Adam(critic.parameters(), self.rate, betas)
        for _ in range(self.steps):
            index = torch.randint(len(public), (self.batch,), generator=rng)
            real = public.images(index.numpy()).to(device())
            made = generator(torch.randn(self.batch, z_dim, generator=rng).to(device()))
            _descend(judges, _bce(critic(real), 1 - self.smoothing) + _bce(critic(made.detach()), 0.0))
            critic.requires_grad_(False)
            _descend(makers, _bce(critic(made), 1.0) + self.identity_weight * self.identity(target, made, y, rng))
            critic.requires_grad_(True)
        return generator.eval()

    def networks(
        self, start: nn.Module | None, z_dim: int, shape: tuple[int, ...], rng: torch.Generator
    ) -> tuple[nn.Module, nn.Module]:
        """Generator (a copy of `start` if given) and critic."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            whole = (shape[-1], 1, 0)
            cut = (self.patch, self.stride, self.padding) if self.patch else whole
            norm = self.norm and bool(self.patch)  # one position has no spread to normalise by
            critic = PatchCritic(self.critic_width, shape[0], *cut, norm)
            if start is not None:
                return copy.deepcopy(start).requires_grad_(True), critic
            return Generator(z_dim, self.width, shape[0], shape[-1], "nearest"), critic

    def identity(self, target: WhiteBox, made: Tensor, y: int, rng: torch.Generator) -> Tensor:
        """Mean cross entropy of the image and its warps."""
        warps = Views(self.scale, self.turn, self.flip, brightness=0.0, contrast=0.0)
        seen = [made, *(warps(made, rng) for _ in range(self.views))]
        labels = torch.full((len(made),), y, device=made.device)
        return torch.stack([F.cross_entropy(target(x), labels) for x in seen]).mean()


def _bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
