"""Image operations of augmentation policies, on batches (n, c, h, w) in [0, 1].

`apply(x, name, amount)`: geometric operations take degrees (rotate), a slope (shear) or a share of the side
(translate) and reflect at the border, so no black margin inflates an error; enhancements take a factor (1 keeps the
image), solarize a threshold (1 keeps nearly all), posterize a number of bits. The rest takes no amount.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
ENHANCEMENTS = ("color", "contrast", "brightness", "sharpness")
PLAIN = ("identity", "autocontrast", "equalize", "invert")
OPERATIONS = (*GEOMETRIC, *ENHANCEMENTS, "solarize", "posterize", *PLAIN)


def apply(x: Tensor, name: str, amount: float = 0.0) -> Tensor:
    """The transformed batch, in [0, 1]."""
    if name in GEOMETRIC:
        return warp(x, name, amount)
    if name in ENHANCEMENTS:
        base = _base(x, name)
        return (base + amount * (x - base)).clamp(0, 1)
    if name == "solarize":
        return torch.where(x < amount, x, 1 - x)
    if name == "posterize":
        step = 2 ** (8 - round(amount))
        return (x * 255 / step).floor() * step / 255
    if name == "invert":
        return 1 - x
    if name == "autocontrast":
        low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-6), x)
    if name == "equalize":
        return torch.stack([torch.stack([_equalized(c) for c in image]) for image in x])
    if name == "identity":
        return x
    raise ValueError(f"operation: expected one of {', '.join(OPERATIONS)}, got '{name}'")


def warp(x: Tensor, name: str, amount: float) -> Tensor:
    """A geometric operation; `warp(warp(x, name, a), name, -a)` undoes it but for the interpolation and the border."""
    matrix = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    if name == "rotate":
        a = math.radians(amount)
        matrix[:, :2] = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    elif name.startswith("shear"):
        matrix[int(name == "shear_y"), int(name == "shear_x")] = amount
    else:
        matrix[int(name == "translate_y"), 2] = 2 * amount
    grid = F.affine_grid(matrix.expand(len(x), 2, 3).to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False).clamp(0, 1)


def signed(name: str) -> bool:
    """Whether the operation has two directions."""
    return name in GEOMETRIC or name in ENHANCEMENTS


def _base(x: Tensor, name: str) -> Tensor:
    """What an enhancement of factor 0 gives."""
    if name == "brightness":
        return torch.zeros_like(x)
    if name == "sharpness":
        kernel = torch.ones(3, 3)
        kernel[1, 1] = 5
        c = x.shape[1]
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), (kernel / 13).expand(c, 1, 3, 3).to(x), groups=c)
    weights = torch.tensor([0.299, 0.587, 0.114]) if x.shape[1] == 3 else torch.full((x.shape[1],), 1 / x.shape[1])
    grey = (x * weights.to(x).view(1, -1, 1, 1)).sum(dim=1, keepdim=True).expand_as(x)
    return grey if name == "color" else grey.mean(dim=(1, 2, 3), keepdim=True).expand_as(x)


def _equalized(channel: Tensor) -> Tensor:
    """One channel (h, w) with its cumulative histogram as the new value."""
    level = (channel * 255).round().long()
    below = torch.bincount(level.flatten(), minlength=256).cumsum(0).to(channel)
    low = below[level.min()]
    if low == below[-1]:
        return channel
    return ((below - low) / (below[-1] - low)).clamp_min(0)[level]


def erase(x: Tensor, low: float, high: float, fill: float, rng: torch.Generator, fixed: bool = False) -> Tensor:
    """Images x (n, c, h, w) without a square of a share of their area in [low, high], a draw for each image.

    >>> gone = erase(torch.ones(5, 1, 8, 8), 0.25, 0.25, 0.0, torch.Generator().manual_seed(0))
    >>> (gone == 0).flatten(1).sum(1)
    tensor([16, 16, 16, 16, 16])
    """
    n, _, height, width = x.shape
    area = low + (high - low) * torch.rand(n, generator=rng)
    side = (area * height * width).sqrt().floor().long().clamp(max=min(height, width))

    def inside(size: int) -> Tensor:  # (n, size): which rows or columns are gone
        room = size - side
        start = room // 2 if fixed else (torch.rand(n, generator=rng) * (room + 1)).long()
        places = torch.arange(size)
        return (places >= start[:, None]) & (places < (start + side)[:, None])

    gone = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return torch.where(gone.to(x.device), torch.full((), fill, dtype=x.dtype, device=x.device), x)
