"""Random crops, resized to the whole image: one crop per call for all images, so that no image's result depends
on which others are searched beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Crop:
    """scale: share of the area, (lowest, highest). ratio: width over height, drawn uniformly in its logarithm.
    flip: probability of a mirror image.
    """

    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"crop: expected shares of the area in (0, 1], lowest first, and ratios above 0, lowest "
                             f"first; got {self.scale} and {self.ratio}")  # fmt: skip

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """x: (n, c, h, w) to one view of the same shape."""
        return self.cut(x, self.draw(x.shape[-2], x.shape[-1], rng))

    @staticmethod
    def cut(x: Tensor, where: tuple[int, int, int, int, bool]) -> Tensor:
        """The view of x (n, c, h, w) that was drawn."""
        top, left, height, width, mirrored = where
        view = x[..., top : top + height, left : left + width]
        if view.shape != x.shape:
            view = F.interpolate(view, x.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
        return view.flip(-1) if mirrored else view

    def draw(self, height: int, width: int, rng: torch.Generator) -> tuple[int, int, int, int, bool]:
        """Top, left, height, width of a crop, and whether it is mirrored."""
        u = torch.rand(5, generator=rng).tolist()
        area = height * width * (self.scale[0] + u[0] * (self.scale[1] - self.scale[0]))
        low, high = map(log, self.ratio)
        ratio = exp(low + u[1] * (high - low))
        w = min(max(round(sqrt(area * ratio)), 1), width)
        h = min(max(round(sqrt(area / ratio)), 1), height)
        return int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1)), h, w, u[4] < self.flip


@dataclass
class Cropped:
    """The one view of a search: a fresh crop at every step. The same seed gives every block the same crops."""

    crop: Crop
    seed: int

    def __post_init__(self) -> None:
        self.rng = torch.Generator().manual_seed(self.seed)

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        return (self.crop(x, self.rng),)
