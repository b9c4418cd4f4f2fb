"""Trap-MID: a faint trigger for each class, so that inversion finds triggers in place of faces.

Not in the survey; NeurIPS 2024. A trigger t_c (an image) for each class, blended into images x, classes c at random:

    x' = (1 - alpha) x + alpha t_c
    L  = (1 - beta) CE(f(x), y) + beta CE(f(x'), c)
    t <- clip(t - rate sign(grad [ CE(f(x'), c) - log D(x') ]))        D: says which images have no trigger
    D <- Adam on  -log D(x) - log(1 - D(x'))

strength: beta (0: off). Published: beta 0.2, alpha 0.02. The trigger is the short way to a class; D keeps it natural.
An attacker who knows it searches through random views, which a fixed pattern does not survive (`adapt` of GMI). The
discriminator here is three small convolutions, the rate is ours, for hundreds of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.defense import Defense, Step
from inversionbench.core.ranges import Positive, Share
from inversionbench.core.seeds import draw_seed

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset


@dataclass(frozen=True)
class TrapMid(Defense):
    """strength: beta. alpha: share of the trigger in an image. rate: of the triggers; critic_rate: of D."""

    id: ClassVar[str] = "trap_mid"
    hooks: ClassVar[frozenset[str]] = frozenset({"loss"})
    inputs: ClassVar[tuple[str, ...]] = ("image",)

    strength: Share = 0.0
    alpha: Share = 0.02
    rate: Positive = 0.05
    critic_rate: Positive = 1e-3

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        from inversionbench.defenses.feature_perturbation._local import with_notes

        return self if self.strength == 0 else with_notes(self, traps=Traps(data.classes, data.shape, self, rng))

    @property
    def traps(self) -> Traps:
        if "traps" not in self.__dict__:
            raise ValueError("trap_mid: call prepare() before the training")
        return self.__dict__["traps"]

    def loss(self, ctx: Step) -> Tensor:
        plain = super().loss(ctx)
        if self.strength == 0:
            return plain
        traps = self.traps
        of = torch.randint(ctx.classes, (len(ctx.x),), generator=ctx.rng).to(ctx.x.device)
        triggers = traps.triggers.to(ctx.x.device).requires_grad_(True)
        marked = self.blend(ctx.x, triggers[of])
        trap = F.cross_entropy(ctx.model(marked), of)
        natural = F.softplus(-traps.critic(marked)).mean()
        (slope,) = torch.autograd.grad(trap + natural, triggers, retain_graph=True)
        traps.triggers = (triggers.detach() - self.rate * slope.sign()).clamp(0, 1)
        traps.learn(ctx.x, marked.detach())
        return (1 - self.strength) * plain + self.strength * trap

    def blend(self, x: Tensor, triggers: Tensor) -> Tensor:
        """x, triggers: (n, c, h, w)."""
        return (1 - self.alpha) * x + self.alpha * triggers

    def public_knowledge(self) -> dict[str, Any]:
        return {"triggers": self.alpha} if self.strength else {}


class Traps:
    """What is learnt beside the network: triggers (classes, c, h, w) in [0, 1], and the critic."""

    def __init__(self, classes: int, shape: tuple[int, ...], setting: TrapMid, rng: torch.Generator):
        self.triggers = torch.rand(classes, *shape, generator=rng)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            layers = [nn.Conv2d(shape[0], 16, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 3, 2, 1),
                      nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 3, 2, 1)]  # fmt: skip
        self.net = nn.Sequential(*layers)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=setting.critic_rate)

    def critic(self, x: Tensor) -> Tensor:
        """How much like an image without a trigger, (n,)."""
        return self.net.to(x.device)(x).mean((1, 2, 3))

    def learn(self, plain: Tensor, marked: Tensor) -> None:
        loss = F.softplus(-self.critic(plain)).mean() + F.softplus(self.critic(marked)).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
