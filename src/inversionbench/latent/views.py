"""Random views of images: what a search, and a generator trained on a target's answers, must survive.

One differentiable warp (crop, rotation and flip in a single resampling) and one change of light per image,
all drawn from a generator on the CPU. A loss that falls on such views is less easily met by a pattern of
single pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Views:
    """scale: share of the area that a crop keeps, (lowest, highest). turn: largest rotation in degrees. flip:
    probability. brightness, contrast: largest relative change, in that share `colour` of the images.
    """

    scale: tuple[float, float] = (0.8, 1.0)
    turn: float = 5.0
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    colour: float = 1.0

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """One view of each image x: (n, c, h, w) in [0, 1], same shape and range."""
        return self.light(warp(x, self._maps(len(x), rng)), rng)

    def several(self, x: Tensor, rng: torch.Generator, count: int) -> Sequence[Tensor]:
        return [self(x, rng) for _ in range(count)]

    def _maps(self, n: int, rng: torch.Generator) -> Tensor:
        """Affine maps (n, 2, 3) from coordinates in the view to those in the image, both in [-1, 1]."""
        low, high = self.scale
        u = torch.rand(n, 5, generator=rng)
        side = (low + (high - low) * u[:, 0]).sqrt()
        angle = (2 * u[:, 1] - 1) * self.turn * pi / 180
        mirror = torch.where(u[:, 2] < self.flip, -1.0, 1.0)
        shift = (2 * u[:, 3:] - 1) * (1 - side)[:, None]
        cos, sin = side * angle.cos(), side * angle.sin()
        rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
        return torch.stack(rows, 1)

    def light(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Brightness, then contrast around the image's mean."""
        if not (self.brightness or self.contrast):
            return x
        u = torch.rand(3, len(x), 1, 1, 1, generator=rng)
        on = (u[2] < self.colour).float()
        gain = (1 + self.brightness * (2 * u[0] - 1) * on).to(x.device)
        spread = (1 + self.contrast * (2 * u[1] - 1) * on).to(x.device)
        x = (x * gain).clamp(0, 1)
        mean = x.mean((1, 2, 3), keepdim=True)
        return (mean + spread * (x - mean)).clamp(0, 1)


def warp(x: Tensor, maps: Tensor) -> Tensor:
    """Images seen through affine maps (n, 2, 3); bilinear, edges repeated."""
    grid = F.affine_grid(maps.to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
