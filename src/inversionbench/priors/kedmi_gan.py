"""P2: a GAN that learns, beside faces, what of them the target tells apart. Trained again for every target.

Survey 3.2, the prior of KEDMI: Chen, Kahla, Jia, Qi, "Knowledge-Enriched Distributional Model Inversion
Attacks", ICCV 2021. The critic has one logit per private class and is taught by the target's soft labels of
public images; real or fake is read off the sum of its exponentials (`models.soft_critic`).

With public batches x, x', x'', samples g = G(z), lse = log sum exp of the logits, sp = softplus:

    L_D = - E sum_k T_k(x) log softmax_k(l(x)) + 1/2 (E [sp(lse x') - lse x'] + E sp(lse g))
    L_G = mean_d | mean phi(g) - mean phi(x'') | + entropy * sum over the batch of H(softmax l(g))

H is minimised: samples should look like somebody. The prior's critic is log D(x) = lse - sp(lse), the realism
term of the attack's second stage. Adam (0.5, 0.999).

The generator has the form of the entry `dcgan`; with `warm` it starts from that one's weights. critic:
`minibatch`, as published, or `classifier`, a small CNN first distilled from the target (`distil_epochs`),
whose batch statistics are then frozen and which learns where real ends (`bias`, at the start the mean lse of
real images): this agrees better with the target in minutes of a CPU. labels: `target`, or `uniform` as the
control that shows what the target's answers are worth. steps: of the generator; the paper's 120 epochs of
30,000 images are 11,250 of them.

Deviations: the target is always in evaluation mode (the released script leaves it in training mode, so that
its statistics drift) and is asked once for each public image and its mirror image, before training; in the
search the `minibatch` critic judges every image alone (the released one compares the rows of a batch); `ema` as
in `dcgan` (0 as published).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.device import device
from inversionbench.core.errors import UserError
from inversionbench.core.prior import Prior, PriorRecipe
from inversionbench.core.ranges import Count, NonNegative, Positive, ShareBelowOne, Whole
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import spawn
from inversionbench.models.classifiers import freeze
from inversionbench.models.generators import Generator
from inversionbench.models.soft_critic import SoftCritic, soft_critic
from inversionbench.priors._distil import agreement, answers, distil
from inversionbench.priors._quality import FrechetProxy, doubts
from inversionbench.priors.dcgan import _copy, _Run, go, hold_out
from inversionbench.training.loop import as_float

if TYPE_CHECKING:
    from pathlib import Path

    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class KedmiGan(PriorRecipe):
    """Recipe of P2; defaults are the paper's. width: of the critic. rate, critic_rate: Adam. See the module."""

    id: ClassVar[str] = "kedmi_gan"
    target_aware: ClassVar[bool] = True
    level: ClassVar[str] = "WB"
    base: ClassVar[str] = "dcgan"
    budget: ClassVar[tuple[str, ...]] = ("steps", "batch")

    critic: Literal["minibatch", "classifier"] = "minibatch"
    width: Count = 64
    warm: bool = False
    steps: Count = 11250
    batch: Count = 64
    rate: Positive = 2e-4
    critic_rate: Positive = 2e-4
    critic_steps: Count = 5
    entropy: NonNegative = 1e-4
    distil_epochs: Whole = 0
    labels: Literal["target", "uniform"] = "target"
    ema: ShareBelowOne = 0.0
    flip: bool = True

    def __post_init__(self) -> None:
        if self.distil_epochs and self.critic != "classifier":
            raise ValueError("distil_epochs: only critic `classifier` is distilled first")

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Oracle | None = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        """Train on public images and the target's answers to them. See `PriorRecipe.train`."""
        assert target is not None
        teacher = target.module().to(device())
        teacher.phase = "train"
        held, real = hold_out(public, rng)
        yardstick = FrechetProxy.of(as_float(held))
        z = torch.randn(len(held), generator_of(base).z_dim, generator=spawn(rng))
        truth = answers(teacher, held)
        soft = torch.stack([answers(teacher, x) for x in ((real, real.flip(-1)) if self.flip else (real,))])
        if self.labels == "uniform":
            soft = torch.full_like(soft, 1 / soft.shape[2])
        run = _KedmiRun(self, real, soft, base, spawn(rng), progress)
        before = run.quality(yardstick, z)
        go(run, self.steps, progress, checkpoint, teacher)
        facts = {
            "steps": self.steps, "fid_like_at_start": before, "fid_like": run.quality(yardstick, z),
            "agreement": agreement(run.logits(), held, truth), **run.opinion(held, z),
            "warnings": doubts(len(real), len(held)),
        }
        return {
            "shape": list(real.shape[1:]), "classes": soft.shape[2], "options": run.options,
            "generator": _copy(run.mean), "critic": _copy(run.critic), "facts": facts,
        }

    def load(self, state: dict[str, Any]) -> Prior:
        with torch.random.fork_rng(devices=[]):
            generator = Generator(**state["options"])
            critic = soft_critic(self.critic, self.width, tuple(state["shape"]), state["classes"])
        generator.load_state_dict(state["generator"])
        critic.load_state_dict(state["critic"])
        where = device()
        return Prior(freeze(generator).to(where), freeze(critic).to(where), generator.z_dim)


def generator_of(base: Any) -> Generator:
    """The convolutional generator that a target-aware GAN starts from."""
    found = getattr(base, "generator", None)
    if not isinstance(found, Generator):
        raise UserError(f"the entry `dcgan` must hold a convolutional generator, got {type(found).__name__}")
    return found


class _KedmiRun(_Run):
    """Generator and critic in training; the critic in evaluation mode where its statistics are frozen."""

    recipe: KedmiGan
    critic: SoftCritic
    betas = (0.5, 0.999)

    def __init__(
        self, recipe: KedmiGan, real: Tensor, soft: Tensor, base: Any, rng: torch.Generator, progress: Progress
    ):
        self.base, self.soft = generator_of(base), soft
        self.options = dict(self.base.options)
        super().__init__(recipe, real, tuple(real.shape[1:]), rng)
        if recipe.distil_epochs:
            self._learn_classes(progress)

    def networks(self, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
        generator = deepcopy(self.base) if self.recipe.warm else Generator(**self.options)
        critic = soft_critic(self.recipe.critic, self.recipe.width, shape, self.soft.shape[2])
        if self.recipe.critic == "minibatch":
            critic.bias.requires_grad_(False)
        return generator.requires_grad_(True).train(), critic

    def _learn_classes(self, progress: Progress) -> None:
        """Distil the critic before the game begins."""
        recipe, r = Recipe(epochs=self.recipe.distil_epochs, rate=3e-3), self.recipe
        model = {"name": "cnn", "width": r.width}
        net = distil(model, self.real, self.soft[0], recipe, 1.0, spawn(self.rng), progress, "critic")
        self.critic.net.load_state_dict(net.state_dict())
        self.critic.eval()  # batch statistics would tell real from fake by themselves
        with torch.no_grad():
            logits = self.critic.trace(as_float(self.real[:256]).to(self.where)).logits
            self.critic.bias.copy_(logits.logsumexp(1).mean())

    def advance(self) -> None:
        """One generator step with its critic steps."""
        for _ in range(self.recipe.critic_steps):
            self._descend(1, self._critic_loss())
        self.critic.requires_grad_(False)
        self._descend(0, self._generator_loss())
        self.critic.requires_grad_(True)
        self.critic.bias.requires_grad_(self.recipe.critic != "minibatch")
        self.step += 1
        self._remember()

    def _made(self) -> Tensor:
        z = torch.randn(self.recipe.batch, self.options["z_dim"], generator=self.rng)
        return self.generator(z.to(self.where))

    def _critic_loss(self) -> Tensor:
        x, y = self._labelled()
        with torch.no_grad():
            made = self._made()
        supervised = -(y * self.critic.trace(x).logits.log_softmax(1)).sum(1).mean()
        real = self.critic.realness(self.critic.trace(self._batch()).logits)
        fake = self.critic.realness(self.critic.trace(made).logits)
        return supervised + 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())

    def _generator_loss(self) -> Tensor:
        seen, real = self.critic.trace(self._made()), self.critic.trace(self._batch())
        assert seen.features is not None
        assert real.features is not None
        gap = (seen.features.mean(0) - real.features.mean(0)).abs().mean()
        p = seen.logits.log_softmax(1)
        return gap + self.recipe.entropy * -(p.exp() * p).sum()

    def _labelled(self) -> tuple[Tensor, Tensor]:
        """A public batch, half of it mirrored, with the target's soft labels of exactly these images."""
        index = torch.randint(len(self.real), (self.recipe.batch,), generator=self.rng)
        turn = torch.randint(len(self.soft), (self.recipe.batch,), generator=self.rng)
        x = as_float(self.real[index])
        x = torch.where(turn.view(-1, 1, 1, 1) == 1, x.flip(-1), x)
        return x.to(self.where), self.soft[turn, index].to(self.where)

    @torch.no_grad()
    def quality(self, yardstick: FrechetProxy, z: Tensor) -> float:
        """`fid_like` of the kept generator."""
        return yardstick.distance(torch.cat([self.mean(part.to(self.where)).cpu() for part in z.split(256)]))

    def logits(self) -> nn.Module:
        """The critic as a classifier, in evaluation mode."""
        return self.critic.eval().net

    @torch.no_grad()
    def opinion(self, held: Tensor, z: Tensor) -> dict[str, float]:
        """Mean probability of being real that the critic gives to held-out and to made images, and the mean
        entropy, in nats, of what it takes the made ones for."""
        critic, x = self.critic.eval(), as_float(held[:256]).to(self.where)
        made = self.mean(z[:256].to(self.where))
        p = critic.trace(made).logits.log_softmax(1)
        return {
            "real": critic(x).exp().mean().item(), "fake": critic(made).exp().mean().item(),
            "entropy": -(p.exp() * p).sum(1).mean().item(),
        }
