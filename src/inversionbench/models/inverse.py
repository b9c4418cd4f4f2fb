"""The inverse network: from what a model released of an image back to the image.

After He, Zhang, Lee (ACSAC 2019), who mirror the client half; here one form for every release:

    map (n, c, h, w):  standardise ── 2 convolutions at h x w ──┐
    vector (n, d):     standardise ── linear to 4 x 4 ──────────┴─▶ transposed convolutions, each doubling the side
                                                                    ──▶ convolution ── sigmoid ── centre crop ──▶ image

Every hidden layer has batch normalisation: without it, networks that learn from noisy releases often end with one
image for every input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FLOOR = 1e-7  # of scores
START = 4  # side of the map that a vector becomes


class Inverse(nn.Module):
    """release (n, *seen) -> image (n, *shape) in [0, 1]. seen: (c, h, w) with h, w no larger than the image, or (d,).
    width: channels of the last hidden layer, at the size of the image; twice as many at half the size, and so on."""

    def __init__(self, seen: tuple[int, ...], shape: tuple[int, int, int], width: int = 16):
        super().__init__()
        if len(seen) not in (1, 3) or (len(seen) == 3 and (seen[1] > _even(shape[1]) or seen[2] > _even(shape[2]))):
            raise ValueError(f"release: expected (values,) or (channels, height, width) within {shape}, got {seen}")
        self.shape = shape
        side = (START, START) if len(seen) == 1 else (seen[1], seen[2])
        doublings = max(0, *(math.ceil(math.log2(whole / part)) for whole, part in zip(shape[1:], side)))
        w = width << doublings
        layers: list[nn.Module]
        if len(seen) == 1:
            layers = [nn.BatchNorm1d(seen[0], affine=False), nn.Linear(seen[0], w * START**2, bias=False),
                      nn.Unflatten(1, (w, *side)), nn.BatchNorm2d(w), nn.ReLU()]  # fmt: skip
        else:
            layers = [nn.BatchNorm2d(seen[0], affine=False), *_block(nn.Conv2d(seen[0], w, 3, padding=1, bias=False)),
                      *_block(nn.Conv2d(w, w, 3, padding=1, bias=False))]  # fmt: skip
        for i in range(doublings):
            layers += _block(nn.ConvTranspose2d(w >> i, w >> (i + 1), 4, 2, padding=1, bias=False))
        self.body = nn.Sequential(*layers, nn.Conv2d(width, shape[0], 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        x = torch.sigmoid(self.body(z))
        top, left = ((x.shape[axis] - self.shape[axis - 1]) // 2 for axis in (2, 3))
        return x[:, :, top : top + self.shape[1], left : left + self.shape[2]]


def log_scores(p: Tensor) -> Tensor:
    """Released scores (n, classes) as an inverse network reads them: logarithms, in which a sure answer still tells its
    small values apart; nothing is below `FLOOR`."""
    return p.clamp_min(FLOOR).log()


def _even(side: int) -> int:
    """The largest side of a map: client halves may pad an image to the next multiple of 8."""
    return -(-side // 8) * 8


def _block(layer: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()]
