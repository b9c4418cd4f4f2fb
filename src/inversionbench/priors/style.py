"""P4: a style-based GAN trained on public images alone, shared by every target, defended or not.

Survey 3.2, the prior of PPA, MIRROR, IF-GMI, DMMIA, VMI's strong branch and GIFD, which take an official
StyleGAN2 (Karras et al., CVPR 2019 and 2020). Networks in `models.style`; `load` returns a `StylePrior` with
the interface that these attacks need: mapping, truncation, synthesis with noise modes, blocks to start from.

Two losses. `logistic` (the paper): L_D = E softplus(D(G(z))) + E softplus(-D(x)), L_G = E softplus(-D(G(z))),
residual critic with the deviation over the batch, and the penalty R1 = (r1 / 2) E |grad D(x)|^2, computed
every `r1_every` steps and scaled by that number (x in [0, 1]: r1 is a quarter of a gamma published for [-1, 1]).
`hinge` (few minutes of CPU): the critic, loss and spectral normalisation of the convolutional prior (`dcgan`),
R1 where r1 > 0. Adam (0, 0.99), scaled weights in the generator, noise drawn afresh in training. `warm_critic`:
so many steps of the convolutional prior are trained first, and its critic is where this one starts (hinge only).

The generator that is kept is an exponential mean of the weights whose half-life is counted in images, at the
state with the lowest `fid_like` to held-out public images; stopping and resuming are those of `dcgan`. The
mean of w, to which truncation pulls, and mean and deviation per coordinate of P space (the mapping before its
last rectifier) are measured on 10,000 samples of the kept mapping.

Deviations: no path-length penalty and no style mixing (as in the small-image preset of StyleGAN2-ADA); mean w
measured at the end instead of running along; a step makes its images once, for both networks; both rates
fall linearly to zero from `decay_from` (a share of the steps) on, where that is below 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from inversionbench.core.device import device
from inversionbench.core.prior import PriorRecipe
from inversionbench.core.ranges import Count, NonNegative, Positive, Share, Whole
from inversionbench.core.seeds import spawn
from inversionbench.models.classifiers import freeze
from inversionbench.models.generators import Critic
from inversionbench.models.style import SLOPE, StyleCritic, StyleGenerator, to_pixels
from inversionbench.models.style_prior import StylePrior
from inversionbench.priors.dcgan import Dcgan, _Run, learn

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part

SAMPLES = 10_000  # of the mapping, for the statistics of w and P space


@dataclass(frozen=True)
class Style(PriorRecipe):
    """Recipe of P4; defaults are for a GPU. channels: features per resolution, coarsest first. steps: at most.
    critic_width: of the hinge critic; the logistic one mirrors `channels`. half_life: images. measure: steps
    between two measurements of quality.
    """

    id: ClassVar[str] = "style"
    target_aware: ClassVar[bool] = False
    budget: ClassVar[tuple[str, ...]] = ("steps", "batch")

    z_dim: Count = 64
    w_dim: Count = 64
    channels: tuple[Count, ...] = (128, 128, 64, 32)
    loss: Literal["logistic", "hinge"] = "logistic"
    steps: Count = 60000
    batch: Count = 32
    rate: Positive = 2.5e-3
    critic_rate: Positive = 2.5e-3
    critic_width: Count = 16
    r1: NonNegative = 0.01
    r1_every: Count = 16
    half_life: Count = 10000
    decay_from: Share = 1.0
    warm_critic: Whole = 0
    flip: bool = True
    measure: Count = 1000
    patience: Count = 20

    def __post_init__(self) -> None:
        if self.warm_critic and self.loss != "hinge":
            raise ValueError("warm_critic: the critic of the convolutional prior serves loss 'hinge' only")

    @property
    def ema(self) -> float:
        """Share of the kept weights that stays at each step."""
        return 0.5 ** (self.batch / self.half_life)

    def networks(self, shape: tuple[int, ...]) -> tuple[StyleGenerator, nn.Module]:
        """Fresh generator and critic for images of shape (channels, side, side)."""
        colours, side = shape[0], shape[-1]
        generator = StyleGenerator(self.z_dim, self.w_dim, self.channels, colours, side)
        if self.loss == "hinge":
            return generator, Critic(self.critic_width, colours, side, "spectral")
        return generator, StyleCritic(self.channels[::-1], colours, side)

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Any = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        """Train on public images; `rng` decides everything. See `PriorRecipe.train`."""
        state = learn(self, _StyleRun, public, rng, progress, checkpoint)
        generator = self.networks(tuple(state["shape"]))[0]
        generator.load_state_dict(state["generator"])
        with torch.no_grad():
            w = generator.style(torch.randn(SAMPLES, self.z_dim, generator=spawn(rng)))
        p = torch.where(w < 0, w / SLOPE, w)
        state["generator"]["w_mean"] = w.mean(0)
        return {**state, "p_mean": p.mean(0), "p_std": p.std(0)}

    def load(self, state: dict[str, Any]) -> StylePrior:
        with torch.random.fork_rng(devices=[]):
            generator, critic = self.networks(tuple(state["shape"]))
        generator.load_state_dict(state["generator"])
        critic.load_state_dict(state["critic"])
        for layer in critic.modules():  # weights are final: no need to divide by the norm at every pass
            if is_parametrized(layer, "weight"):
                remove_parametrizations(layer, "weight")
        where = device()
        return StylePrior(
            freeze(generator).to(where), freeze(critic).to(where), self.z_dim,
            state["p_mean"].to(where), state["p_std"].to(where),
        )  # fmt: skip


class _StyleRun(_Run):
    """The same training with styles: fresh noise, lazy R1, falling rates, both losses of this recipe."""

    recipe: Style

    def __init__(self, recipe: Style, real: Tensor, shape: tuple[int, ...], rng: torch.Generator):
        super().__init__(recipe, real, shape, rng)
        betas = (0.0, 0.99)
        self.optimisers = (
            torch.optim.Adam(self.generator.parameters(), recipe.rate, betas),
            torch.optim.Adam(self.critic.parameters(), recipe.critic_rate, betas),
        )
        self.shape = shape

    def advance(self) -> None:
        """One step of each network."""
        if self.step == 0 and self.recipe.warm_critic:
            self._warm()
        self._slow_down()
        made = self._made()  # once for both: the generator answers the critic that has just seen them
        self._descend(1, self._critic_loss(made.detach()))
        self.critic.requires_grad_(False)
        score = self.critic(made)
        self._descend(0, -score.mean() if self.recipe.loss == "hinge" else F.softplus(-score).mean())
        self.critic.requires_grad_(True)
        self.step += 1
        self._remember()

    def _made(self) -> Tensor:
        """Pixels, not clamped: the critic must see, and push back, what leaves [0, 1]."""
        assert isinstance(self.generator, StyleGenerator)
        z = torch.randn(self.recipe.batch, self.recipe.z_dim, generator=self.rng).to(self.where)
        return to_pixels(self.generator.synthesis(self.generator.mapping(z), "random", self.rng))

    def _critic_loss(self, made: Tensor | None = None) -> Tensor:
        x = self._batch()
        penalised = self.recipe.r1 > 0 and self.step % self.recipe.r1_every == 0
        x.requires_grad_(penalised)
        if made is None:
            with torch.no_grad():
                made = self._made()
        real, fake = self.critic(x), self.critic(made)
        if self.recipe.loss == "hinge":
            loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        else:
            loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        if penalised:
            (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
            size = slope.square().flatten(1).sum(1).mean()
            loss = loss + 0.5 * self.recipe.r1 * self.recipe.r1_every * size
        return loss

    def _slow_down(self) -> None:
        r = self.recipe
        left = min(1.0, (1 - self.step / r.steps) / max(1 - r.decay_from, 1 / r.steps))
        for optimiser, rate in zip(self.optimisers, (r.rate, r.critic_rate)):
            for group in optimiser.param_groups:
                group["lr"] = rate * left

    def _warm(self) -> None:
        """Take the critic of a convolutional prior trained for `warm_critic` steps."""
        r = self.recipe
        first = Dcgan(width=r.critic_width, z_dim=r.z_dim, upsample="nearest", loss="hinge", rate=4e-4,
                      critic_rate=8e-4, critic_steps=1, flip=r.flip)  # fmt: skip
        run = _Run(first, self.real, self.shape, spawn(self.rng))
        for _ in range(r.warm_critic):
            run.advance()
        self.critic.load_state_dict(run.critic.state_dict())
