"""Random erasing (MIDRE): every training image loses a square, another one in every epoch.

Survey 7.1. Tran, Nguyen, Mai, Vandierendonck, Assent, Kot, Cheung, "Random Erasing vs. Model Inversion: A Promising
Defense or a False Hope?", TMLR 2025. For each image (c, H, W) in [0, 1], each time it is trained on:

    a ~ U[a_min, a_max]      s = floor(sqrt(a H W)), at most the shorter side
    corner uniform among the places where the square fits;      x[:, square] = fill

No image is erased at test time, the loss stays as it is. strength: a_max (0: off; below `a_min` the area is a_max).
Published (from memory): a_min 0.1, a_max 0.4 for small faces, up to 0.8. fill is the middle of the range, which the
networks here normalise to 0. The same square as a classical augmentation has half the probability, less area and
random values.

An attacker who knows it looks at his own images through such squares (`adapt` of GMI).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class RandomErasing(Defense):
    """strength: a_max. fixed: always the square in the middle (a control: what random places are good for)."""

    id: ClassVar[str] = "random_erasing"
    hooks: ClassVar[frozenset[str]] = frozenset({"train_transform"})
    inputs: ClassVar[tuple[str, ...]] = ("image",)

    strength: Share = 0.0
    a_min: Share = 0.1
    fill: Share = 0.5
    fixed: bool = False

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        if self.strength == 0:
            return x, y
        from inversionbench.models.operations import erase

        return erase(x, min(self.a_min, self.strength), self.strength, self.fill, rng, self.fixed), y

    def public_knowledge(self) -> dict[str, Any]:
        if self.strength == 0:
            return {}
        return {"erased": [min(self.a_min, self.strength), self.strength], "fill": self.fill}
