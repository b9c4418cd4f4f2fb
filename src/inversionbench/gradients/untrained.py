"""Untrained image networks and the space of their architectures, from which one is chosen for each target.

A U-shaped network maps fixed noise (batch, c, h, w) to images in (0, 1). Encoder level i halves the size;
decoder level j doubles it. An architecture says which encoder levels feed which decoder levels, and how the
decoder enlarges: an upsampling, a convolution, its kernel, an activation. Batch norms use the batch at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
UPSAMPLINGS = ("bilinear", "bicubic", "nearest", "pixel_shuffle", "transposed")
CONVOLUTIONS = ("conv", "transposed", "split_sum", "separable", "depthwise", "identity")
KERNELS = (1, 3, 5, 7)
ACTIVATIONS = ("none", "relu", "leaky_relu")


@dataclass(frozen=True)
class Architecture:
    """skips[i][j]: whether encoder level i feeds decoder level j; the rest: how decoder levels enlarge."""

    skips: tuple[tuple[bool, ...], ...]
    upsampling: str
    convolution: str
    kernel: int
    activation: str

    def __str__(self) -> str:
        rows = "/".join("".join(map(str, map(int, row))) for row in self.skips)
        return f"{rows} {self.upsampling} {self.convolution}{self.kernel} {self.activation}"


def draw(levels: int, rng: torch.Generator) -> Architecture:
    """A uniformly random architecture."""

    def one(options: tuple) -> int:  # type: ignore[type-arg]
        return int(torch.randint(len(options), (1,), generator=rng))

    on = (torch.rand(levels, levels, generator=rng) < 0.5).tolist()
    return Architecture(
        tuple(tuple(row) for row in on), UPSAMPLINGS[one(UPSAMPLINGS)], CONVOLUTIONS[one(CONVOLUTIONS)],
        KERNELS[one(KERNELS)], ACTIVATIONS[one(ACTIVATIONS)],
    )  # fmt: skip


class SplitSum(nn.Module):
    """The channels in `parts` stacks, summed, then a convolution back to all of them."""

    def __init__(self, width: int, kernel: int, parts: int = 4):
        super().__init__()
        self.parts = parts
        self.conv = nn.Conv2d(width // parts, width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unflatten(1, (self.parts, -1)).sum(1))


def _norm(width: int) -> nn.Module:
    return nn.BatchNorm2d(width, track_running_stats=False)


def _activation(name: str) -> nn.Module:
    return {"none": nn.Identity(), "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(SLOPE)}[name]


def _enlarge(name: str, width: int) -> nn.Module:
    """Twice the size, the same number of channels."""
    if name == "pixel_shuffle":
        return nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(width // 4, width, 1))
    if name == "transposed":
        return nn.ConvTranspose2d(width, width, 4, 2, padding=1)
    return nn.Upsample(scale_factor=2, mode=name, align_corners=None if name == "nearest" else False)


def _convolve(name: str, width: int, k: int) -> nn.Module:
    make: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Conv2d(width, width, k, padding=k // 2),
        "transposed": lambda: nn.ConvTranspose2d(width, width, k, padding=k // 2),
        "split_sum": lambda: SplitSum(width, k),
        "separable": lambda: nn.Sequential(
            nn.Conv2d(width, width, k, padding=k // 2, groups=width), nn.Conv2d(width, width, 1)
        ),
        "depthwise": lambda: nn.Conv2d(width, width, k, padding=k // 2, groups=width),
        "identity": nn.Identity,
    }
    return make[name]()


class UNet(nn.Module):
    """One untrained network. levels: halvings of the size; width: channels everywhere, a multiple of 4."""

    def __init__(self, a: Architecture, colours: int, width: int):
        super().__init__()
        self.skips, levels = a.skips, len(a.skips)
        leaky = nn.LeakyReLU(SLOPE)
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width if i else colours, width, 3, 2, padding=1), _norm(width), leaky,
                          nn.Conv2d(width, width, 3, padding=1), _norm(width), leaky)
            for i in range(levels)
        )  # fmt: skip
        self.decoder = nn.ModuleList()
        for j in range(levels):
            inputs = width * (1 + sum(row[j] for row in a.skips))
            self.decoder.append(nn.Sequential(
                _norm(inputs), nn.Conv2d(inputs, width, 3, padding=1), _norm(width), leaky,
                _enlarge(a.upsampling, width), _convolve(a.convolution, width, a.kernel), _norm(width),
                _activation(a.activation), nn.Conv2d(width, width, 1), _norm(width), leaky,
            ))  # fmt: skip
        self.out = nn.Conv2d(width, colours, 1)

    def forward(self, z: Tensor) -> Tensor:
        """z (batch, colours, h, w) to images of the same shape, in (0, 1)."""
        levels, h = [], z
        for block in self.encoder:
            h = block(h)
            levels.append(h)
        for j in reversed(range(len(self.decoder))):
            fed = [_moved(e, j - i) for i, e in enumerate(levels) if self.skips[i][j]]
            h = self.decoder[j](torch.cat([h, *fed], dim=1))
        return torch.sigmoid(self.out(h))


def _moved(h: Tensor, levels: int) -> Tensor:
    """Features to another level, one halving or doubling after the other."""
    for _ in range(abs(levels)):
        h = F.avg_pool2d(h, 2) if levels > 0 else F.interpolate(h, scale_factor=2, mode="bilinear")
    return h


def make(a: Architecture, colours: int, width: int, seed: int) -> UNet:
    """The network with the random weights of a seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(a, colours, width)
