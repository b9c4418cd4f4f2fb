"""Label smoothing with a positive sign: the control of `negative_label_smoothing`, no defense.

The amplifying half of Struppek, Hintersdorf, Kersting, ICLR 2024 (survey 3.4 and 7.1); introduced by Szegedy et
al., "Rethinking the Inception Architecture", CVPR 2016. With p = softmax(o) and alpha = strength:

    L = (1 - alpha) (-log p_y) + alpha / C sum_k (-log p_k)

Minimal at p_y = 1 - alpha + alpha / C: the gap between the true logit and each other one is then
log(((1 - alpha) + alpha / C) / (alpha / C)), finite, and the features of a class draw together. No schedule.
The paper finds that inversion gets easier; rows under it say whether that holds here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import NonNegative
from inversionbench.defenses.miscellaneous.negative_label_smoothing import smoothed

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.defense import Step


@dataclass(frozen=True)
class LabelSmoothing(Defense):
    """strength: alpha, at most 1."""

    id: ClassVar[str] = "label_smoothing"
    hooks: ClassVar[frozenset[str]] = frozenset({"loss"})
    # the finite gap between logits; other trainings of the same network differ by 5 %
    effect: ClassVar[tuple[str, str, float] | None] = ("effect_logit_norm", "lower", 0.9)

    strength: NonNegative = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength: expected 0 to 1, got {self.strength}; for less take negative_label_smoothing")

    def loss(self, ctx: Step) -> Tensor:
        return smoothed(ctx.logits, ctx.y, self.strength) if self.strength else super().loss(ctx)

    def public_knowledge(self) -> dict[str, Any]:
        return {"alpha": self.strength}
