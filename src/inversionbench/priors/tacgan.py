"""T-ACGAN: a class-conditional GAN whose discriminator learns the target's labels of what the GAN makes.

Survey 3.2, the prior of LOKT: Nguyen, Chandrasegaran, Abdollahzadeh, Cheung, "Label-Only Model Inversion Attacks via
Knowledge Transfer", NeurIPS 2023. Trained again for every target, of which it sees labels alone, one query each.

1. With z ~ N(0, I), y uniform over classes, made images G(z, y), public images x without labels, and a trunk with two
   heads, D (real or made) and K (class), t the target's label of G(z, y) as G is now:

       L_D = b(D(x), 1) + b(D(G(z, y)), 0) + alpha CE(K(G(z, y)), t)        b: binary cross entropy with logits
       L_G = b(D(G(z, y)), 1) + alpha CE(K(G(z, y)), y)

   `critic_steps` of L_D for one of L_G; in the first `warm_up` steps neither has the class term, nor is anything asked.
2. `each` images of every class are made and labelled by the target; on them each of `models` (the surrogates) learns
   1/2 CE(S(x), t) + 1/2 CE(S(view of x), t). A tenth only measures agreement.

Surrogates touch nothing else of the target; an attack on them costs no query. Parameters as published, but for the
networks: those of the entry `dcgan` with conditional normalisation, started from its weights where `warm` is set (there
residual ones, from nothing), and the surrogates: DenseNets there. feedback false puts y in the place of t, so that
nothing is learnt of the target: the control. keep_at: steps at which generator and K are kept for curves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from inversionbench.core.defense import Defense
from inversionbench.core.device import device
from inversionbench.core.prior import PriorRecipe
from inversionbench.core.ranges import Count, NonNegative, Positive, ShareBelowOne, Whole
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import spawn
from inversionbench.latent.views import Views
from inversionbench.models.classifiers import build, freeze, load
from inversionbench.models.conditional import ConditionalGenerator
from inversionbench.models.generators import Critic, Generator, stages
from inversionbench.models.names import check_model
from inversionbench.priors._quality import doubts
from inversionbench.priors.dcgan import _copy, _Run
from inversionbench.priors.kedmi_gan import generator_of
from inversionbench.priors.plg_gan import ConditionalPrior, _take
from inversionbench.training.evaluators import plain_state
from inversionbench.training.loop import fit

if TYPE_CHECKING:
    from pathlib import Path

    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle

VIEWS = Views()


class TwoHeads(Critic):
    """The convolutional critic with a second head that names the class. K is `self.named`."""

    def __init__(self, width: int, channels: int, side: int, classes: int):
        super().__init__(width, channels, side, "spectral")
        n = stages(side)
        self.head = spectral_norm(nn.Linear((width << (n - 1)) * (side >> n) ** 2, classes))

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """D (n,) and K (n, classes), logits."""
        h = self.body[:-1](x * 2 - 1)
        return self.body[-1](h).flatten(), self.head(h.flatten(1))


class ClassHead(nn.Module):
    """K alone, as a classifier of images in [0, 1]."""

    def __init__(self, net: TwoHeads):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.both(x)[1]


@dataclass(frozen=True)
class Snapshot:
    """The state at one step of training: queries until then, generator of classes, K."""

    queries: int
    prior: ConditionalPrior
    head: nn.Module


@dataclass(frozen=True)
class TaughtPrior(ConditionalPrior):
    """The trained GAN; head: K; surrogates: networks taught by its images; queries: what all of it has cost."""

    head: nn.Module
    surrogates: tuple[nn.Module, ...]
    queries: int
    path: tuple[Snapshot, ...]


@dataclass(frozen=True)
class _Both(Defense):
    """Every image as it is and as a view of it, in the training loop's place for a defense."""

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        return torch.cat([x, VIEWS(x, rng)]), torch.cat([y, y])


@dataclass(frozen=True)
class Tacgan(PriorRecipe):
    """steps: of the generator, warm_up included. epochs, surrogate_rate: of the surrogates (one-cycle AdamW)."""

    id: ClassVar[str] = "tacgan"
    target_aware: ClassVar[bool] = True
    level: ClassVar[str] = "LO"
    base: ClassVar[str] = "dcgan"
    budget: ClassVar[tuple[str, ...]] = ("steps", "critic_steps", "batch")

    alpha: NonNegative = 1.5
    steps: Count = 20000
    warm_up: Whole = 1000
    batch: Count = 128
    critic_steps: Count = 5
    rate: Positive = 2e-4
    critic_rate: Positive = 2e-4
    ema: ShareBelowOne = 0.0
    flip: bool = True
    warm: bool = False
    each: Count = 500
    models: tuple[dict[str, Any], ...] = ({"name": "resnet"}, {"name": "plain"}, {"name": "cnn"})
    epochs: Count = 200
    surrogate_rate: Positive = 4e-3
    feedback: bool = True
    keep_at: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models: expected at least one surrogate")
        for model in self.models:
            check_model(model, "tacgan.models")
        if self.warm_up > self.steps:
            raise ValueError(f"warm_up: expected at most the {self.steps} steps, got {self.warm_up}")

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Oracle | None = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        """Train the GAN on the target's labels, then the surrogates. See `PriorRecipe.train`."""
        assert target is not None
        real = torch.from_numpy(public.x.copy())
        run, path = _TacganRun(self, real, target, base, spawn(rng)), []
        for step in progress(range(1, self.steps + 1), desc=self.id, total=self.steps):
            run.advance()
            if step in self.keep_at and step < self.steps:
                path.append(run.snapshot())
        x, said = run.labelled(self.each)
        held = len(x) // 10
        state = {"shape": list(real.shape[1:]), "classes": run.classes, "options": run.options, "path": path,
                 **run.snapshot(), "surrogates": []}  # fmt: skip
        nets = [self.surrogate(model, x[held:], said[held:], run.classes, spawn(rng), progress)
                for model in self.models]  # fmt: skip
        state["surrogates"] = [{"model": dict(m), "state": plain_state(s)} for m, s in zip(self.models, nets)]
        agree = [float((net(x[:held]).argmax(1) == said[:held]).double().mean()) for net in (run.named(), *nets)]
        facts = {"steps": self.steps, "agreement": agree, "labels_seen": len(said.unique()),
                 "warnings": doubts(len(real))}  # fmt: skip
        return {**state, "facts": facts}

    def surrogate(
        self, model: dict[str, Any], x: Tensor, y: Tensor, classes: int, rng: torch.Generator, progress: Progress
    ) -> nn.Module:
        recipe = Recipe(epochs=self.epochs, batch=64, optimiser="adamw", rate=self.surrogate_rate,
                        weight_decay=5e-4, schedule="one_cycle")  # fmt: skip
        net = fit(lambda: build(model, tuple(x.shape[1:]), classes), x, y, classes, recipe, _Both(), rng,
                  progress, "surrogate")  # fmt: skip
        return freeze(net)

    def load(self, state: dict[str, Any]) -> TaughtPrior:
        shape, classes = tuple(state["shape"]), state["classes"]
        nets = [load(s["model"], shape, classes, s["state"]).to(device()) for s in state["surrogates"]]
        last, *path = (_loaded(s, state["options"], shape, classes) for s in (state, *state["path"]))
        gan = last.prior
        return TaughtPrior(gan.generator, None, gan.z_dim, classes, last.head, tuple(nets), last.queries, tuple(path))


def _loaded(saved: dict[str, Any], options: dict[str, Any], shape: tuple[int, ...], classes: int) -> Snapshot:
    with torch.random.fork_rng(devices=[]):
        generator = ConditionalGenerator(Generator(**options), classes)
        critic = TwoHeads(options["width"], shape[0], shape[-1], classes)
    generator.load_state_dict(saved["generator"])
    critic.load_state_dict(saved["critic"])
    where = device()
    prior = ConditionalPrior(freeze(generator).to(where), None, generator.z_dim, classes)
    return Snapshot(saved["queries"], prior, freeze(ClassHead(critic)).to(where))


class _TacganRun(_Run):
    """Generator and discriminator in training. real: (n, c, h, w), uint8."""

    recipe: Tacgan
    betas = (0.0, 0.9)

    def __init__(self, recipe: Tacgan, real: Tensor, oracle: Oracle, base: Any, rng: torch.Generator):
        self.base, self.oracle, self.classes = base, oracle, oracle.num_classes or 0
        self.options = dict(generator_of(base).options)
        super().__init__(recipe, real, tuple(real.shape[1:]), rng)

    def networks(self, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
        critic = TwoHeads(self.options["width"], shape[0], shape[-1], self.classes)
        if not self.recipe.warm:
            return ConditionalGenerator(Generator(**self.options), self.classes), critic
        _take(critic, self.base.critic)
        return ConditionalGenerator(generator_of(self.base), self.classes).requires_grad_(True).train(), critic

    @property
    def knows(self) -> bool:
        """Whether the warm-up is over."""
        return self.step >= self.recipe.warm_up

    def advance(self) -> None:
        """One generator step with its critic steps."""
        for _ in range(self.recipe.critic_steps):
            self._descend(1, self._critic_loss())
        self.critic.requires_grad_(False)
        z, y = self.draw(self.recipe.batch)
        real, named = self.critic.both(self.generator(z, y))  # type: ignore[operator]
        self._descend(0, _bce(real, 1) + (self.recipe.alpha * F.cross_entropy(named, y) if self.knows else 0))
        self.critic.requires_grad_(True)
        self.step += 1
        self._remember()

    def _critic_loss(self) -> Tensor:
        x = self._batch()
        z, y = self.draw(self.recipe.batch)
        with torch.no_grad():
            made = self.generator(z, y)
        fake, named = self.critic.both(made)  # type: ignore[operator]
        loss = _bce(self.critic(x), 1) + _bce(fake, 0)
        if self.knows:
            said = self.oracle.labels(made.cpu(), phase="train").to(y) if self.recipe.feedback else y
            loss = loss + self.recipe.alpha * F.cross_entropy(named, said)
        return loss

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Latents (n, z_dim) and classes (n,)."""
        y = torch.randint(self.classes, (n,), generator=self.rng)
        return torch.randn(n, self.options["z_dim"], generator=self.rng).to(self.where), y.to(self.where)

    @torch.no_grad()
    def labelled(self, each: int) -> tuple[Tensor, Tensor]:
        """`each` images of every class by the kept generator, in random order, and what the target calls them."""
        y = torch.arange(self.classes).repeat(each)[torch.randperm(self.classes * each, generator=self.rng)]
        z = torch.randn(len(y), self.options["z_dim"], generator=self.rng)
        x = torch.cat([self.mean(a.to(self.where), b.to(self.where)) for a, b in zip(z.split(256), y.split(256))])
        if not self.recipe.feedback:
            return x, y.to(self.where)
        said = torch.cat([self.oracle.labels(part.cpu(), phase="train") for part in x.split(256)])
        return x, said.to(self.where)

    def named(self) -> nn.Module:
        return ClassHead(self.critic).eval()  # type: ignore[arg-type]

    def snapshot(self) -> dict[str, Any]:
        return {"queries": self.oracle.ledger.queries, "generator": _copy(self.mean), "critic": _copy(self.critic)}


def _bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
