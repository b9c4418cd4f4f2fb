"""P1: a convolutional GAN trained on public images alone, shared by every target, defended or not.

Survey 3.2, the prior of GMI (Zhang et al., CVPR 2020) and of the attacks that build on it. Generator of a
linear layer and upsampling convolutions, z ~ N(0, I); a critic whose score is also the realism term of GMI.

Two losses. `wgan_gp` (the paper): L_D = E D(G(z)) - E D(x) + 10 E (|grad D(x~)| - 1)^2 with x~ on the line
between a real and a made image, L_G = -E D(G(z)); Adam (0.5, 0.999), critic with instance normalisation, five
critic steps for one of the generator. `hinge` (few minutes of CPU): L_D = E max(0, 1 - D(x)) +
E max(0, 1 + D(G(z))), spectral normalisation, Adam (0, 0.99), one to one. The paper's optional diversity term
(features of the target) is left out, as in its released code for faces without a hint image: the prior does
not depend on the target.

The generator that is kept is an exponential mean of the weights (`ema` per step; 0 keeps the raw weights, as
published), at the state with the lowest `fid_like` to held-out public images; training stops when `patience`
measurements in a row bring no better one.

Deviations: nearest upsampling with 3x3 convolutions instead of transposed ones where `upsample: nearest`;
the stopping rule replaces the fixed number of epochs (280 on CelebA).
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
from inversionbench.core.files import whole, write_tensors
from inversionbench.core.prior import Prior, PriorRecipe
from inversionbench.core.ranges import Count, NonNegative, Positive, ShareBelowOne
from inversionbench.core.seeds import draw_seed, spawn
from inversionbench.models.base import channels_last
from inversionbench.models.classifiers import freeze
from inversionbench.models.generators import Critic, Generator
from inversionbench.priors._quality import FrechetProxy, blurred, doubts
from inversionbench.training.loop import as_float

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.classifier import WhiteBox

HELD_OUT = 1000  # public images that only measure quality; at most a tenth of all
EVERY = 500  # steps between two checkpoints where nothing is measured


@dataclass(frozen=True)
class Dcgan(PriorRecipe):
    """Recipe of P1; defaults are the paper's. steps: of the generator, at most. width: channels of the last
    hidden layer of the generator and of the first of the critic. rate, critic_rate: Adam. measure: steps
    between two measurements of quality.
    """

    id: ClassVar[str] = "dcgan"
    target_aware: ClassVar[bool] = False
    budget: ClassVar[tuple[str, ...]] = ("steps", "batch")

    z_dim: Count = 100
    width: Count = 64
    upsample: Literal["transposed", "nearest"] = "transposed"
    loss: Literal["wgan_gp", "hinge"] = "wgan_gp"
    steps: Count = 130000
    batch: Count = 64
    rate: Positive = 2e-4
    critic_rate: Positive = 2e-4
    critic_steps: Count = 5
    penalty: NonNegative = 10.0
    ema: ShareBelowOne = 0.0
    flip: bool = True
    measure: Count = 1000
    patience: Count = 20

    def networks(self, shape: tuple[int, ...]) -> tuple[Generator, Critic]:
        """Fresh generator and critic for images of shape (channels, side, side)."""
        channels, side = shape[0], shape[-1]
        norm = "spectral" if self.loss == "hinge" else "instance"
        return (
            Generator(self.z_dim, self.width, channels, side, self.upsample),
            Critic(self.width, channels, side, norm),
        )

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Any = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        """Train on public images; `rng` decides everything. See `PriorRecipe.train`."""
        return learn(self, _Run, public, rng, progress, checkpoint)

    def load(self, state: dict[str, Any]) -> Prior:
        generator, critic = self.networks(tuple(state["shape"]))
        generator.load_state_dict(state["generator"])
        critic.load_state_dict(state["critic"])
        for layer in critic.modules():  # weights are final: no need to divide by the norm at every pass
            if is_parametrized(layer, "weight"):
                remove_parametrizations(layer, "weight")
        where = device()
        return Prior(freeze(generator).to(where), freeze(critic).to(where), self.z_dim)


def learn(
    recipe: Any, kind: type[_Run], public: Part, rng: torch.Generator, progress: Progress, checkpoint: Path | None
) -> dict[str, Any]:
    """Train a GAN of one kind with the stopping rule above: the state of its recipe.

    recipe: z_dim, steps, batch, measure, patience, flip, ema, rates, `networks(shape)` as in `Dcgan`.
    """
    held_out, real = hold_out(public, rng)
    held = len(held_out)
    yardstick = FrechetProxy.of(as_float(held_out))
    run = kind(recipe, real, tuple(real.shape[1:]), spawn(rng))
    if checkpoint and checkpoint.exists():
        with whole(checkpoint, checkpoint):
            run.restore(torch.load(checkpoint, weights_only=True))
    z = torch.randn(held, recipe.z_dim, generator=spawn(rng))
    for step in progress(range(run.step, recipe.steps), desc=recipe.id, total=recipe.steps - run.step):
        if run.finished:
            break
        run.advance()
        if (step + 1) % recipe.measure == 0 or step + 1 == recipe.steps:
            run.assess(yardstick, z)
            if checkpoint:
                write_tensors(checkpoint, run.state())
    best, other = run.best, as_float(real[:held])
    facts = {
        "steps": run.step, "best_step": best["step"], "fid_like": best["quality"],
        "fid_like_of_real": yardstick.distance(other),
        "fid_like_of_blurred_real": yardstick.distance(blurred(other)), "history": run.history,
        "warnings": doubts(len(real), held, stops=True),
    }
    return {
        "shape": list(real.shape[1:]), "generator": best["generator"], "critic": best["critic"], "facts": facts,
    }


def go(
    run: Any, steps: int, progress: Progress, checkpoint: Path | None, target: WhiteBox | None = None
) -> None:
    """Bring a training without a stopping rule to `steps`, from the state in `checkpoint` if there is one; the passes
    of the target that it had paid for are booked again."""
    if checkpoint and checkpoint.exists():
        with whole(checkpoint, checkpoint):
            saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
            run.restore(saved["run"])
        if target:
            target.charge(saved["passes"] - target.ledger.passes, "train")
    for _ in progress(range(run.step, steps), desc=run.recipe.id, total=steps - run.step):
        run.advance()
        if checkpoint and run.step % EVERY == 0:
            write_tensors(checkpoint, {"run": run.state(), "passes": target.ledger.passes if target else 0})


def hold_out(public: Part, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Public images that only measure quality, and those that train: uint8, a quarter of the memory."""
    order = torch.randperm(len(public), generator=rng).numpy()
    held = min(HELD_OUT, max(len(public) // 10, 2))
    return torch.from_numpy(public.x[order[:held]]), torch.from_numpy(public.x[order[held:]])


class _Run:
    """The moving parts of one training."""

    def __init__(self, recipe: Any, real: Tensor, shape: tuple[int, ...], rng: torch.Generator):
        self.recipe, self.real, self.rng, self.where = recipe, real, rng, device()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            generator, critic = self.networks(shape)
            mean = self.networks(shape)[0]
        self.generator = channels_last(generator).to(self.where)
        self.critic = channels_last(critic).to(self.where)
        self.mean = freeze(mean).to(self.where)
        self.mean.load_state_dict(self.generator.state_dict())
        self.optimisers = (
            torch.optim.Adam(self.generator.parameters(), recipe.rate, self.betas),
            torch.optim.Adam(self.critic.parameters(), recipe.critic_rate, self.betas),
        )
        self.step = 0
        self.best: dict[str, Any] = {}
        self.history: list[list[float]] = []

    @property
    def betas(self) -> tuple[float, float]:
        """Of Adam."""
        return (0.0, 0.99) if self.recipe.loss == "hinge" else (0.5, 0.999)

    def networks(self, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
        """Fresh generator and critic; called twice, with the global generator seeded."""
        return self.recipe.networks(shape)

    @property
    def finished(self) -> bool:
        """Whether the last `patience` measurements brought nothing better."""
        return bool(self.best) and len(self.history) - self.best["measured"] >= self.recipe.patience

    def advance(self) -> None:
        """One generator step with its critic steps."""
        for _ in range(self.recipe.critic_steps):
            self._descend(1, self._critic_loss())
        self.critic.requires_grad_(False)
        self._descend(0, -self.critic(self._made()).mean())
        self.critic.requires_grad_(True)
        self.step += 1
        self._remember()

    def _remember(self) -> None:
        """Move the kept weights towards the new ones."""
        with torch.no_grad():
            for kept, new in zip(self.mean.state_dict().values(), self.generator.state_dict().values(), strict=True):
                kept.copy_(torch.lerp(new, kept, self.recipe.ema) if kept.is_floating_point() else new)

    def assess(self, yardstick: FrechetProxy, z: Tensor) -> None:
        """Measure the kept generator; remember the state if it is the best so far."""
        with torch.no_grad():
            made = torch.cat([self.mean(part.to(self.where)).cpu() for part in z.split(256)])
        quality = yardstick.distance(made)
        self.history.append([self.step, quality])
        if not self.best or quality < self.best["quality"]:
            self.best = {
                "quality": quality, "step": self.step, "measured": len(self.history),
                "generator": _copy(self.mean), "critic": _copy(self.critic),
            }

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs to go on as if never interrupted."""
        return {
            "step": self.step, "best": self.best, "history": self.history, "rng": self.rng.get_state(),
            "networks": [_copy(n) for n in (self.generator, self.critic, self.mean)],
            "optimisers": [o.state_dict() for o in self.optimisers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.best, self.history = state["step"], state["best"], state["history"]
        self.rng.set_state(state["rng"])
        for net, saved in zip((self.generator, self.critic, self.mean), state["networks"], strict=True):
            net.load_state_dict(saved)
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)

    def _descend(self, which: int, loss: Tensor) -> None:
        self.optimisers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[which].step()

    def _made(self) -> Tensor:
        z = torch.randn(self.recipe.batch, self.recipe.z_dim, generator=self.rng)
        return self.generator(z.to(self.where))

    def _batch(self) -> Tensor:
        index = torch.randint(len(self.real), (self.recipe.batch,), generator=self.rng)
        x = as_float(self.real[index]).to(self.where)
        if self.recipe.flip:
            turn = torch.rand(len(x), 1, 1, 1, generator=self.rng).to(self.where) < 0.5
            x = torch.where(turn, x.flip(-1), x)
        return x

    def _critic_loss(self) -> Tensor:
        x = self._batch()
        with torch.no_grad():
            made = self._made()
        if self.recipe.loss == "hinge":
            return F.relu(1 - self.critic(x)).mean() + F.relu(1 + self.critic(made)).mean()
        a = torch.rand(len(x), 1, 1, 1, generator=self.rng).to(self.where)
        between = (x + a * (made - x)).requires_grad_(True)
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        excess = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return self.critic(made).mean() - self.critic(x).mean() + self.recipe.penalty * excess


def _copy(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}
