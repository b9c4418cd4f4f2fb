"""P5: a network that completes photographs with a hole in many ways, trained on public images alone.

Survey 3.2, the prior of SecretGen (Yuan, Wu, Long, Xiao, Li, ECCV 2022). Of a public image x with the mask m
and latents z_1, z_2 it makes x^_i = x (1 - m) + net(x (1 - m), m, z_i) m; a critic D_g sees whole images, a
critic D_l crops of half the side that overlap the hole:

    L_net = - (D_l(x^_1) + D_g(x^_1)) / 2 - diversity * mean |F(x^_1) - F(x^_2)| / mean |z_1 - z_2|

F: features in which completions should differ. Here pixels of the hole (so the prior does not depend on a
target); `completion_target` takes the target's penultimate features, as the paper's white-box form.

`wgan_gp` (the paper): gradient penalty 10, Adam (0.5, 0.999) at 4e-3, 100 epochs of batch 64, critics and
network stepped once each. `hinge` (few minutes of CPU): spectral normalisation, Adam (0, 0.99).

Deviations: plain encoder and decoder (`models.completion`) instead of the two-branch network; `l1` > 0 adds
the distance to the real image to the loss (0, as the paper's loss has none).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from inversionbench.core.device import device
from inversionbench.core.prior import PriorRecipe
from inversionbench.core.ranges import Count, NonNegative, Positive
from inversionbench.core.seeds import draw_seed, spawn
from inversionbench.models.base import channels_last
from inversionbench.models.classifiers import freeze
from inversionbench.models.completion import Completion as Net
from inversionbench.models.completion import hole
from inversionbench.models.generators import Critic
from inversionbench.priors._quality import FrechetProxy, doubts
from inversionbench.priors.dcgan import _copy, go
from inversionbench.training.loop import as_float

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox

HELD_OUT = 500  # public images that only measure quality; at most a tenth of all


@dataclass(frozen=True)
class Completer:
    """A trained completion prior. net, whole, local: frozen. fill: (c, 1, 1), the public mean."""

    net: Net
    whole: Critic
    local: Critic
    fill: Tensor
    z_dim: Count

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """n latents from N(0, I), clamped to [-1, 1]: (n, z_dim)."""
        return torch.randn(n, self.z_dim, generator=rng).clamp(-1, 1)

    def realism(self, x: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
        """D_l + D_g of each image: (n,). The crop of D_l is drawn anew."""
        return self.whole(x) + self.local(crop(x, mask, rng))


@dataclass(frozen=True)
class Completion(PriorRecipe):
    """Recipe of P5; defaults are the paper's."""

    id: ClassVar[str] = "completion"
    target_aware: ClassVar[bool] = False
    budget: ClassVar[tuple[str, ...]] = ("steps", "batch")

    z_dim: Count = 100
    width: Count = 32
    loss: Literal["wgan_gp", "hinge"] = "wgan_gp"
    steps: Count = 47000
    batch: Count = 64
    rate: Positive = 4e-3
    critic_rate: Positive = 4e-3
    critic_width: Count = 64
    penalty: NonNegative = 10.0
    diversity: NonNegative = 0.5
    l1: NonNegative = 0.0

    def networks(self, shape: tuple[int, ...]) -> tuple[Net, Critic, Critic]:
        """Fresh network, whole and local critic for images of shape (channels, side, side)."""
        norm = "spectral" if self.loss == "hinge" else "instance"
        channels, side = shape[0], shape[-1]
        return (
            Net(self.z_dim, self.width, channels, side),
            Critic(self.critic_width, channels, side, norm),
            Critic(self.critic_width, channels, side // 2, norm),
        )

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Oracle | None = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        return self.learn(public, rng, progress, lambda x, mask: x * mask, checkpoint)

    def learn(
        self, public: Part, rng: torch.Generator, progress: Progress, features: Callable[[Tensor, Tensor], Tensor],
        checkpoint: Path | None, target: WhiteBox | None = None,
    ) -> dict[str, Any]:
        """Train; features: (images, mask) -> rows in which two completions should differ; target: whose they are."""
        order = torch.randperm(len(public), generator=rng)
        held = min(HELD_OUT, max(len(public) // 10, 2))
        real = torch.from_numpy(public.x[order[held:].numpy()])
        shape = tuple(real.shape[1:])
        fill = (real.double().mean((0, 2, 3)) / 255).float().view(-1, 1, 1)
        run = _Run(self, real, shape, fill, features, spawn(rng))
        go(run, self.steps, progress, checkpoint, target)
        facts: dict[str, Any] = run.assess(public.images(order[:held].numpy()))
        facts = {"steps": self.steps, **facts, "warnings": doubts(len(real), held - held // 2)}  # half is the yardstick
        nets = run.state()["nets"]
        return {"shape": list(shape), "nets": nets, "fill": fill, "facts": facts}

    def load(self, state: dict[str, Any]) -> Completer:
        with torch.random.fork_rng(devices=[]):
            nets = self.networks(tuple(state["shape"]))
        for net, saved in zip(nets, state["nets"], strict=True):
            net.load_state_dict(saved)
            for layer in net.modules():
                if is_parametrized(layer, "weight"):
                    remove_parametrizations(layer, "weight")
        where = device()
        net, whole, local = (freeze(net).to(where) for net in nets)
        return Completer(net, whole, local, state["fill"].to(where), self.z_dim)  # type: ignore[arg-type]


def crop(x: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
    """The same random window of half the side from all images, with its centre inside the hole."""
    side, half = x.shape[-1], x.shape[-1] // 2
    where = mask.reshape(-1, *mask.shape[-2:])[0].nonzero()
    y, c = where[int(torch.randint(len(where), (1,), generator=rng))].tolist()
    top, left = (min(max(v - half // 2, 0), side - half) for v in (y, c))
    return x[..., top : top + half, left : left + half]


class _Run:
    """The moving parts of one training."""

    def __init__(
        self, recipe: Completion, real: Tensor, shape: tuple[int, ...], fill: Tensor,
        features: Callable[[Tensor, Tensor], Tensor], rng: torch.Generator,
    ):
        self.recipe, self.real, self.features, self.rng, self.where = recipe, real, features, rng, device()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            nets = recipe.networks(shape)
        self.nets = [channels_last(net).to(self.where).train() for net in nets]
        self.net, self.whole, self.local = self.nets
        self.mask, self.fill = hole(*shape[1:]).to(self.where).float()[None], fill.to(self.where)
        betas = (0.0, 0.99) if recipe.loss == "hinge" else (0.5, 0.999)
        critics: list[nn.Parameter] = [*self.whole.parameters(), *self.local.parameters()]
        self.optimisers = (
            torch.optim.Adam(self.net.parameters(), recipe.rate, betas),
            torch.optim.Adam(critics, recipe.critic_rate, betas),
        )
        self.step = 0

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs to go on as if never interrupted."""
        return {
            "step": self.step, "rng": self.rng.get_state(), "nets": [_copy(net) for net in self.nets],
            "optimisers": [o.state_dict() for o in self.optimisers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.rng.set_state(state["rng"])
        for part, saved in zip((*self.nets, *self.optimisers), (*state["nets"], *state["optimisers"]), strict=True):
            part.load_state_dict(saved)

    def advance(self) -> None:
        """One step of the critics and one of the network."""
        r = self.recipe
        x = as_float(self.real[torch.randint(len(self.real), (r.batch,), generator=self.rng)]).to(self.where)
        z = torch.randn(2, r.batch, r.z_dim, generator=self.rng).to(self.where)
        both = self.net(x.repeat(2, 1, 1, 1), self.mask, z.flatten(0, 1), self.fill)
        made, other = both.chunk(2)
        window = self.rng.get_state()
        pairs = []
        for critic, cut in ((self.whole, False), (self.local, True)):
            seen = []
            for images in (x, made.detach()):
                self.rng.set_state(window)  # the same window of both
                seen.append(crop(images, self.mask, self.rng) if cut else images)
            pairs.append(self._critic_loss(critic, *seen))
        self._step(1, pairs[0] + pairs[1])
        for critic in (self.whole, self.local):
            critic.requires_grad_(False)
        score = self.whole(made).mean() + self.local(crop(made, self.mask, self.rng)).mean()
        differ = (self.features(made, self.mask) - self.features(other, self.mask)).abs().mean()
        loss = -score / 2 - r.diversity * differ / (z[0] - z[1]).abs().mean()
        self._step(0, loss + r.l1 * (made - x).abs().mean() if r.l1 else loss)
        for critic in (self.whole, self.local):
            critic.requires_grad_(True)
        self.step += 1

    def _critic_loss(self, critic: nn.Module, x: Tensor, made: Tensor) -> Tensor:
        if self.recipe.loss == "hinge":
            return F.relu(1 - critic(x)).mean() + F.relu(1 + critic(made)).mean()
        a = torch.rand(len(x), 1, 1, 1, generator=self.rng).to(self.where)
        between = (x + a * (made - x)).requires_grad_(True)
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        excess = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return critic(made).mean() - critic(x).mean() + self.recipe.penalty * excess

    def _step(self, which: int, loss: Tensor) -> None:
        self.optimisers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[which].step()

    @torch.no_grad()
    def assess(self, held: Tensor) -> dict[str, float]:
        """Quality of completions of held-out public images, and how much two of one image differ in the hole."""
        self.net.eval()
        half = max(len(held) // 2, 1)
        x = held[:half].to(self.where)
        z = torch.randn(2, len(x), self.recipe.z_dim, generator=self.rng).clamp(-1, 1).to(self.where)
        made, other = (self.net(x, self.mask, part, self.fill) for part in z)
        yardstick = FrechetProxy.of(held[half:])
        inside = float(self.mask.mean())
        return {
            "fid_like": yardstick.distance(made.cpu()),
            "fid_like_of_real": yardstick.distance(x.cpu()),
            "fid_like_of_holes": yardstick.distance((x * (1 - self.mask) + self.fill * self.mask).cpu()),
            "difference_in_hole": float((made - other).abs().mean()) / inside,
            "error_in_hole": float((made - x).abs().mean()) / inside,
        }
