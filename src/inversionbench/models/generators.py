"""Generators and critics of the convolutional prior.

Two forms: the published one (transposed 5x5 convolutions, critic with instance normalisation, for the
gradient penalty) and a small one for few minutes of a CPU (nearest upsampling and 3x3 convolutions, which
cannot make the 2-pixel checker pattern of transposed ones; critic with spectral normalisation).
Images are in [0, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

UPSAMPLINGS = ("nearest", "transposed")
CRITIC_NORMS = ("spectral", "instance")


def stages(side: int) -> int:
    """Doublings from a 4 x 4 or a 7 x 7 map to `side` pixels.

    >>> stages(32), stages(64), stages(28)
    (3, 4, 2)
    """
    for start in (4, 7):
        n = (side // start).bit_length() - 1
        if n >= 1 and start << n == side:
            return n
    raise ValueError(f"image side: expected 4 or 7 times a power of two (28, 32, 64, 128), got {side}")


class Generator(nn.Module):
    """z (n, z_dim) -> image (n, channels, side, side) in [0, 1].

    A linear layer to width * 2**(stages - 1) channels of 4 x 4 (or 7 x 7); each doubling of the resolution
    halves the channels, the last one makes the image. `options`: what builds another one like it.
    """

    def __init__(self, z_dim: int, width: int, channels: int, side: int, upsample: str = "nearest"):
        super().__init__()
        if upsample not in UPSAMPLINGS:
            raise ValueError(f"upsample: expected one of {', '.join(UPSAMPLINGS)}, got '{upsample}'")
        n = stages(side)
        start = side >> n
        first = width << (n - 1)
        self.shape = (first, start, start)
        self.z_dim = z_dim
        self.options: dict[str, Any] = {
            "z_dim": z_dim, "width": width, "channels": channels, "side": side, "upsample": upsample,
        }
        self.first = nn.Sequential(
            nn.Linear(z_dim, first * start * start, bias=False), nn.BatchNorm1d(first * start * start), nn.ReLU()
        )
        layers: list[nn.Module] = []
        for i in range(n - 1):
            after = first >> (i + 1)
            layers += [_up(first >> i, after, upsample), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers, _up(width, channels, upsample, bias=True))

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z).view(-1, *self.shape)
        return (torch.tanh(self.body(h)) + 1) / 2


class UpConv(nn.Conv2d):
    """Nearest upsampling by 2, then a 3x3 convolution: (n, a, s, s) -> (n, b, 2 s, 2 s).

    Computed as the transposed 4x4 convolution of stride 2 that is equal to it, kernel (w2, w1 + w2, w0 + w1,
    w0) along each axis: 16 products for each pixel and channel instead of 36, and no upsampled copy.
    """

    def __init__(self, a: int, b: int, bias: bool):
        super().__init__(a, b, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.transpose(0, 1)
        for axis in (2, 3):
            w0, w1, w2 = kernel.split(1, axis)
            kernel = torch.cat([w2, w1 + w2, w0 + w1, w0], axis)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


def _up(before: int, after: int, upsample: str, bias: bool = False) -> nn.Module:
    if upsample == "transposed":
        return nn.ConvTranspose2d(before, after, 5, 2, padding=2, output_padding=1, bias=bias)
    return UpConv(before, after, bias)


class Critic(nn.Module):
    """image (n, channels, side, side) in [0, 1] -> score (n,), unbounded, higher is more real."""

    def __init__(self, width: int, channels: int, side: int, norm: str = "spectral"):
        super().__init__()
        if norm not in CRITIC_NORMS:
            raise ValueError(f"critic norm: expected one of {', '.join(CRITIC_NORMS)}, got '{norm}'")
        n = stages(side)
        size = 4 if norm == "spectral" else 5
        layers: list[nn.Module] = []
        before = channels
        for i in range(n):
            after = width << i
            layer: nn.Module = nn.Conv2d(before, after, size, 2, padding=(size - 1) // 2)
            layers.append(spectral_norm(layer) if norm == "spectral" else layer)
            if norm == "instance" and i > 0:
                layers.append(nn.InstanceNorm2d(after, affine=True))
            layers.append(nn.LeakyReLU(0.2))
            before = after
        last: nn.Module = nn.Conv2d(before, 1, side >> n)
        layers.append(spectral_norm(last) if norm == "spectral" else last)
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1).flatten()
