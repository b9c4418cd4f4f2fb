"""Negative label smoothing: cross entropy that also rewards low log-probabilities of the wrong classes.

Survey 7.1 and the LSMI row. Struppek, Hintersdorf, Kersting, "Be Careful What You Smooth For: Label Smoothing
Can Be a Privacy Shield but Also a Catalyst for Model Inversion Attacks", ICLR 2024.

With p = softmax(o) and alpha = -strength:

    L = (1 - alpha) (-log p_y) + alpha / C sum_k (-log p_k)      over all C classes, the true one included

For alpha < 0 the gradient of the wrong logits, p_k + |alpha| / C, never vanishes: confidence saturates and
the directions that raise p_y stop carrying what the class looks like. Schedule for alpha < 0 over E epochs
(authors' code): 0 for the first half, then alpha (t + 1 - E/2) / (E - E/2) for a quarter (so up to alpha / 2),
then alpha; without the first half accuracy suffers. A negative strength is the paper's other half, ordinary
smoothing, which the paper finds to raise leakage; it has no schedule.

Published: alpha = -0.05 with hundreds of classes and 100 epochs of Adam, its rate constant to epoch 75, no decay.
What acts is alpha / C times the steps spent at it, at the rate they are taken with: a short training whose rate falls
to 0 may say nothing of the method. It acted where the norm of the logits on training images has grown (`effect`).
Measured against undefended: 50 people, 15 epochs, one_cycle: 1.9 times at -0.5, 4.0 at -2, accuracy unchanged (one
target); 12 people, 288 images, 15 epochs: 1.1 and 1.3, and after 30 epochs of Adam at a constant rate 2.1 at -0.05,
16.5 at -0.5 (three). The loss is unbounded below: the recipe's `clip` is there if it diverges.

It masks gradients: attack it with the margin loss too. Those 12 people, 60 epochs at a constant rate, 6 attacked by GMI
through principal components as prior, three targets, agreement at alpha 0 / -0.05 / -0.5 (norm 12 / 20 / 101, accuracy
92 % each): cross entropy 56 / 39 / 29 %, margin 62 / 71 / 76 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch.nn import functional as F

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import NonNegative, Share

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.defense import Step


@dataclass(frozen=True)
class NegativeLabelSmoothing(Defense):
    """strength: -alpha. warm_up, ramp: shares of the epochs at alpha = 0, and of the rise."""

    id: ClassVar[str] = "negative_label_smoothing"
    hooks: ClassVar[frozenset[str]] = frozenset({"loss"})
    # between the trainings that hardly show it and those that do (see above)
    effect: ClassVar[tuple[str, str, float] | None] = ("effect_logit_norm", "higher", 1.5)

    strength: NonNegative = 0.0
    warm_up: Share = 0.5
    ramp: Share = 0.25

    def loss(self, ctx: Step) -> Tensor:
        alpha = self.alpha(ctx.epoch, ctx.epochs)
        return smoothed(ctx.logits, ctx.y, alpha) if alpha else super().loss(ctx)

    def alpha(self, epoch: int, epochs: int) -> float:
        """The smoothing of an epoch, counted from 0.

        >>> [NegativeLabelSmoothing(0.1).alpha(t, 8) for t in range(8)]
        [0.0, 0.0, 0.0, 0.0, -0.025, -0.05, -0.1, -0.1]
        """
        if self.strength <= 0:
            return 0.0 - self.strength
        start, full = int(self.warm_up * epochs), int((self.warm_up + self.ramp) * epochs)
        if epoch < start:
            return 0.0
        return -self.strength * ((epoch + 1 - start) / (epochs - start) if epoch < full else 1.0)

    def public_knowledge(self) -> dict[str, Any]:
        return {"alpha": -self.strength}


def smoothed(logits: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Mean loss. logits: (n, classes); y: (n,) int64, or soft (n, classes); alpha <= 1, negative to defend."""
    own = F.cross_entropy(logits, y)
    return (1 - alpha) * own - alpha * F.log_softmax(logits, dim=1).mean()
