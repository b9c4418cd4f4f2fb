"""AT-AT, anti-adversarial training: what a tiny change turns a face into counts as the class it was turned into.

Not in the survey; ICLR 2026. From targeted PGD (metrics/robust_accuracy.py) towards a random other class y_adv:

    L = CE(f(x), y) + weight CE(f(x_adv), y_adv)        |x_adv - x| <= eps, `steps` steps of `rate`, evaluation mode

so the network relies on features that nobody sees, and inversion finds those. strength: the weight (0: off). Published:
0.08, eps 5e-4 and rate 1e-4 of a range of 2, 5 steps; here the range is 1. Costs `steps` + 1 passes more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.defense import Defense, Step
from inversionbench.core.ranges import Count, Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AtAt(Defense):
    """strength: weight. eps, rate: in the range of pixels, [0, 1]."""

    id: ClassVar[str] = "at_at"
    hooks: ClassVar[frozenset[str]] = frozenset({"loss"})
    inputs: ClassVar[tuple[str, ...]] = ("image",)

    eps: Positive = 2.5e-4
    rate: Positive = 5e-5
    steps: Count = 5

    def loss(self, ctx: Step) -> Tensor:
        plain = super().loss(ctx)
        if self.strength == 0:
            return plain
        from torch.nn import functional as F

        from inversionbench.metrics.robust_accuracy import other_classes, targeted_pgd

        hard = ctx.y if ctx.y.dim() == 1 else ctx.y.argmax(1)
        wrong = other_classes(hard, ctx.classes, ctx.rng)
        was = ctx.model.training
        moved = targeted_pgd(ctx.model.eval(), ctx.x, wrong, self.eps, self.rate, self.steps)
        return plain + self.strength * F.cross_entropy(ctx.model.train(was)(moved), wrong)

    def public_knowledge(self) -> dict[str, Any]:
        return {"weight": self.strength, "eps": self.eps} if self.strength else {}
