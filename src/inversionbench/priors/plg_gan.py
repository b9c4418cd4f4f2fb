"""P3: a class-conditional GAN on public images under the labels that the target gives them.

Survey 3.2, the prior of PLG-MI: Yuan, Chen, Zhang, Zhang, Yu, Zhang, "Pseudo Label-Guided Model Inversion
Attack via Conditional GAN", AAAI 2023. Trained again for every target.

1. For every private class the `top` public images of which the target is surest are its pseudo-class: exactly
   `top` each, an image may stand in several (facts: how many are `distinct`).
2. With pairs (x, k) of the pseudo-classes, k uniform, and critic scores D (networks in `models.conditional`):

       L_D = E relu(1 - D(x, k)) + E relu(1 + D(G(z, k), k))
       L_G = - E D(G(z, k), k) + alpha * E [ max_{j != k} o_j - o_k ],   o = T(view of G(z, k))

   Adam (0, 0.9); real images dequantised by noise of one grey level.

form: `residual`, as published, or `shared`: the generator and critic of the entry `dcgan`, its normalisations
conditional, a projection added, started from its weights where `warm` is set. z_dim and width belong to the
residual form. target_share: part of each generator batch that the target looks at (1 as published; its
passes are most of the cost). shuffle: hands out the pseudo-labels at random and leaves the target out of L_G, the
control in which the classes mean nothing. steps: of the generator.

Deviations: G ends in [0, 1], where the released code feeds a tanh to a target that expects [0, 1]; crops and
rotations repeat edges; `ema` as in `dcgan` (0 as published).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from inversionbench.core.device import device
from inversionbench.core.errors import UserError
from inversionbench.core.prior import Prior, PriorRecipe
from inversionbench.core.ranges import Count, NonNegative, Positive, Share, ShareBelowOne, Whole
from inversionbench.core.seeds import spawn
from inversionbench.latent.losses import margin
from inversionbench.latent.views import Views
from inversionbench.models.classifiers import freeze
from inversionbench.models.conditional import (
    ConditionalGenerator,
    ProjectionCritic,
    ResidualCritic,
    ResidualGenerator,
)
from inversionbench.models.generators import Critic, Generator
from inversionbench.priors._distil import answers
from inversionbench.priors._quality import FrechetProxy, doubts
from inversionbench.priors.dcgan import _copy, _Run, go, hold_out
from inversionbench.priors.kedmi_gan import generator_of
from inversionbench.training.loop import as_float

if TYPE_CHECKING:
    from pathlib import Path

    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox

VIEWS = Views(colour=0.5)


@dataclass(frozen=True)
class ConditionalPrior(Prior):
    """A trained class-conditional prior. generator: (z, y) -> images; without y classes come in turn."""

    classes: Whole

    def of(self, y: Tensor) -> nn.Module:
        """The generator of samples of classes y (n,): z (n, z_dim) -> images."""
        return _OfClass(self.generator, y)


class _OfClass(nn.Module):
    def __init__(self, generator: nn.Module, y: Tensor):
        super().__init__()
        self.generator, self.y = generator, y

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z, self.y)


@dataclass(frozen=True)
class PlgGan(PriorRecipe):
    """Recipe of P3; defaults are the paper's. See the module."""

    id: ClassVar[str] = "plg_gan"
    target_aware: ClassVar[bool] = True
    level: ClassVar[str] = "WB"
    base: ClassVar[str] = "dcgan"
    budget: ClassVar[tuple[str, ...]] = ("steps", "batch")

    top: Count = 30
    form: Literal["residual", "shared"] = "residual"
    z_dim: Count = 128
    width: Count = 64
    warm: bool = False
    steps: Count = 30000
    batch: Count = 64
    rate: Positive = 2e-4
    critic_rate: Positive = 2e-4
    critic_steps: Count = 5
    alpha: NonNegative = 0.2
    target_share: Share = 1.0
    shuffle: bool = False
    ema: ShareBelowOne = 0.0
    flip: bool = True

    def __post_init__(self) -> None:
        if self.warm and self.form != "shared":
            raise ValueError("warm: only form `shared` can start from the convolutional prior")
        if not 0 < self.target_share <= 1:
            raise ValueError(f"target_share: expected a share in (0, 1], got {self.target_share}")

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Oracle | None = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        """Select pseudo-classes, then train. See `PriorRecipe.train`."""
        assert target is not None
        teacher = target.module().to(device())
        teacher.phase = "train"
        held, rest = hold_out(public, rng)
        scores = answers(teacher, rest)
        chosen = top_of_class(scores, self.top)
        if self.shuffle:
            chosen = chosen.flatten()[torch.randperm(chosen.numel(), generator=rng)].view_as(chosen)
        yardstick = FrechetProxy.of(as_float(held))
        run = _PlgRun(self, rest, chosen, teacher, base, spawn(rng))
        z = torch.randn(len(held), run.z_dim, generator=spawn(rng))
        go(run, self.steps, progress, checkpoint, teacher)
        facts = {
            "steps": self.steps, "distinct": len(chosen.unique()), "of": chosen.numel(),
            "confidence": scores.gather(0, chosen.T).mean().item(),
            "fid_like": run.quality(yardstick, z), "obeys": run.obedience(z),
            "warnings": doubts(len(rest), len(held)),
        }
        return {
            "shape": list(rest.shape[1:]), "classes": len(chosen), "options": run.options,
            "generator": _copy(run.mean), "facts": facts,
        }

    def load(self, state: dict[str, Any]) -> ConditionalPrior:
        shape, classes = tuple(state["shape"]), state["classes"]
        with torch.random.fork_rng(devices=[]):
            generator = self.generator(state["options"], shape, classes)
        generator.load_state_dict(state["generator"])
        return ConditionalPrior(freeze(generator).to(device()), None, generator.z_dim, classes)

    def generator(
        self, options: dict[str, Any], shape: tuple[int, ...], classes: int
    ) -> ConditionalGenerator | ResidualGenerator:
        """A fresh generator; options: of the entry `dcgan`'s one."""
        if self.form == "shared":
            return ConditionalGenerator(Generator(**options), classes)
        return ResidualGenerator(self.z_dim, self.width, shape[0], shape[-1], classes)


def top_of_class(scores: Tensor, top: int) -> Tensor:
    """For each class the images of highest score: (classes, top). scores: (n, classes); ties to the first.

    >>> top_of_class(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), 2)
    tensor([[0, 2],
            [1, 2]])
    """
    if top > len(scores):
        raise UserError(f"top: expected at most the {len(scores)} public images that train, got {top}")
    return scores.sort(dim=0, descending=True, stable=True).indices[:top].T.contiguous()


class _PlgRun(_Run):
    """Conditional generator and critic in training. chosen: (classes, top), of the images `real`."""

    recipe: PlgGan
    betas = (0.0, 0.9)

    def __init__(
        self, recipe: PlgGan, real: Tensor, chosen: Tensor, target: WhiteBox, base: Any, rng: torch.Generator
    ):
        self.base, self.chosen, self.target = base, chosen, target
        self.options = dict(generator_of(base).options)
        self.z_dim = self.options["z_dim"] if recipe.form == "shared" else recipe.z_dim
        super().__init__(recipe, real, tuple(real.shape[1:]), rng)

    def networks(self, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
        r, classes = self.recipe, len(self.chosen)
        if r.form == "residual":
            return r.generator(self.options, shape, classes), ResidualCritic(r.width, shape[0], shape[-1], classes)
        critic = ProjectionCritic(self.options["width"], shape[0], shape[-1], classes)
        if not r.warm:
            return r.generator(self.options, shape, classes), critic
        _take(critic, self.base.critic)
        return ConditionalGenerator(generator_of(self.base), classes).requires_grad_(True).train(), critic

    def advance(self) -> None:
        """One generator step with its critic steps."""
        for _ in range(self.recipe.critic_steps):
            self._descend(1, self._critic_loss())
        self.critic.requires_grad_(False)
        self._descend(0, self._generator_loss())
        self.critic.requires_grad_(True)
        self.step += 1
        self._remember()

    def _critic_loss(self) -> Tensor:
        k = self._classes()
        member = torch.randint(self.chosen.shape[1], (len(k),), generator=self.rng)
        raw = self.real[self.chosen[k, member]].float()
        x = (raw + torch.rand(raw.shape, generator=self.rng)) / 256
        if self.recipe.flip:
            x = torch.where(torch.rand(len(x), 1, 1, 1, generator=self.rng) < 0.5, x.flip(-1), x)
        j = self._classes().to(self.where)
        with torch.no_grad():
            made = self.generator(self._latents(), j)
        real, fake = self.critic(x.to(self.where), k.to(self.where)), self.critic(made, j)
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def _generator_loss(self) -> Tensor:
        r, k = self.recipe, self._classes().to(self.where)
        made = self.generator(self._latents(), k)
        loss = -self.critic(made, k).mean()
        if r.alpha and not r.shuffle:
            n = max(1, round(r.target_share * len(k)))
            loss = loss + r.alpha * margin(self.target(VIEWS(made[:n], self.rng)), k[:n]).mean()
        return loss

    def _classes(self) -> Tensor:
        return torch.randint(len(self.chosen), (self.recipe.batch,), generator=self.rng)

    def _latents(self) -> Tensor:
        return torch.randn(self.recipe.batch, self.z_dim, generator=self.rng).to(self.where)

    @torch.no_grad()
    def quality(self, yardstick: FrechetProxy, z: Tensor) -> float:
        """`fid_like` of samples of all classes in turn to held-out public images."""
        return yardstick.distance(self._samples(z))

    def obedience(self, z: Tensor) -> float:
        """Share of samples that the target takes for the class they were made as."""
        said = answers(self.target, self._samples(z)).argmax(1)
        return (said == torch.arange(len(z)) % len(self.chosen)).double().mean().item()

    @torch.no_grad()
    def _samples(self, z: Tensor) -> Tensor:
        y = torch.arange(len(z)) % len(self.chosen)
        parts = zip(z.split(256), y.split(256))
        return torch.cat([self.mean(a.to(self.where), b.to(self.where)).cpu() for a, b in parts])


def _take(critic: Critic, trained: Critic | None) -> None:
    """Start the trunk from the convolutional prior's critic, whose weights are already divided by their norm."""
    ours = [m for m in critic.body if isinstance(m, nn.Conv2d)]
    theirs = [m for m in trained.body if isinstance(m, nn.Conv2d)] if isinstance(trained, Critic) else []
    if [m.weight.shape for m in ours] != [m.weight.shape for m in theirs]:
        raise UserError("warm: needs a `dcgan` with loss `hinge`, whose critic has the form of this one")
    with torch.no_grad():
        for a, b in zip(ours, theirs, strict=True):
            assert is_parametrized(a, "weight")
            assert a.bias is not None
            assert b.bias is not None
            a.weight = b.weight.detach().cpu().clone()
            a.bias.copy_(b.bias)
