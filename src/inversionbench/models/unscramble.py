"""The networks of SIA-GAN (Madono, Tanaka, Onishi, Ogawa, IEEE Access 2021): H undoes a block-wise scrambling, D tells
plain images from what H makes. Images in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

PER_PIXEL = 16  # channels of the assembled features


class Unscrambler(nn.Module):
    """x: (n, channels, height, width) -> the same shape, and the assembled features F (n, 16, height, width).

    Each block is read by a convolution of its own size and stride, one for all places (`shared`) or one for each, into
    16 values for each of its pixels; then residual blocks. mixing: blocks may come from any place: the features at a
    place are a learnt mean over all places, which begins as the identity.
    """

    def __init__(self, shape: tuple[int, int, int], block: int, width: int, depth: int, shared: bool, mixing: bool):
        super().__init__()
        channels, height, width_px = shape
        self.block, self.grid = block, (height // block, width_px // block)
        places, inputs, outputs = self.grid[0] * self.grid[1], channels * block**2, PER_PIXEL * block**2
        self.weight = nn.Parameter(torch.randn(1 if shared else places, inputs, outputs) / inputs**0.5)
        self.mix = nn.Parameter(4.0 * torch.eye(places)) if mixing else None
        self.norm = nn.BatchNorm2d(outputs)
        self.enter = spectral_norm(nn.Conv2d(PER_PIXEL, width, 3, padding=1))
        self.blocks = nn.ModuleList(_Residual(width) for _ in range(depth))
        self.leave = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = F.unfold(x, self.block, stride=self.block).mT  # (n, places, inputs)
        parts = (parts[:, :, None] @ self.weight)[:, :, 0]
        if self.mix is not None:
            parts = self.mix.softmax(1) @ parts
        seen = F.leaky_relu(self.norm(parts.mT.unflatten(2, self.grid)), 0.1)
        features = F.pixel_shuffle(seen, self.block)
        h = F.leaky_relu(self.enter(features), 0.1)
        for block in self.blocks:
            h = block(h)
        return self.leave(h).tanh(), features


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        conv = lambda: spectral_norm(nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.body = nn.Sequential(conv(), nn.BatchNorm2d(width), nn.LeakyReLU(0.1), conv(), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.body(x), 0.1)


def discriminator(channels: int, width: int) -> nn.Sequential:
    """Three spectrally normalised convolutions that halve the side twice, mean, one logit (n, 1)."""
    layers: list[nn.Module] = []
    for a, b, stride in ((channels, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)):
        layers += [spectral_norm(nn.Conv2d(a, b, 3, stride=stride, padding=1)), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), spectral_norm(nn.Linear(4 * width, 1)))
