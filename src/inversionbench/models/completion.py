"""Completion of photographs with a hole: networks of the prior that SecretGen searches.

Encoder of the damaged image and its mask to a map of a quarter of the side, latents joined there, dilated
convolutions that look across the hole, decoder with nearest upsampling. Images are in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inversionbench.models.generators import UpConv

DILATIONS = (1, 2, 4)
SHARE = 0.5  # side of the hole, of the side of the image


def hole(height: int, width: int) -> Tensor:
    """uint8 (1, height, width), 1 where the photograph is missing: the centre.

    >>> hole(4, 4)[0].tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    h, w = round(SHARE * height), round(SHARE * width)
    top, left = (height - h) // 2, (width - w) // 2
    mask[:, top : top + h, left : left + w] = 1
    return mask


class Completion(nn.Module):
    """(x: (n, c, h, w) of which only pixels outside the mask are used, mask: (1 | n, 1, h, w) in {0, 1}, 1 =
    missing, z: (n, z_dim)) -> completed images (n, c, h, w); known pixels are copied."""

    def __init__(self, z_dim: int, width: int, channels: int, side: int):
        super().__init__()
        if side % 4:
            raise ValueError(f"image side: expected a multiple of 4, got {side}")
        self.quarter = side // 4
        self.encode = nn.Sequential(
            _block(channels + 1, width, 5, 1), _block(width, 2 * width, 3, 2), _block(2 * width, 4 * width, 3, 2)
        )
        self.latent = nn.Sequential(nn.Linear(z_dim, 2 * width * self.quarter**2), nn.LeakyReLU(0.2))
        layers = [_block(6 * width if i == 0 else 4 * width, 4 * width, 3, 1, d) for i, d in enumerate(DILATIONS)]
        self.decode = nn.Sequential(
            *layers,
            UpConv(4 * width, 2 * width, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2),
            UpConv(2 * width, width, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor, mask: Tensor, z: Tensor, fill: Tensor) -> Tensor:
        """fill: (c, 1, 1), the value that stands in the hole, usually the public mean."""
        mask = mask.to(x).expand(len(x), -1, -1, -1)
        damaged = x * (1 - mask) + fill * mask
        h = self.encode(torch.cat([2 * damaged - 1, mask], 1))
        noise = self.latent(z).view(len(z), -1, self.quarter, self.quarter)
        made = (torch.tanh(self.decode(torch.cat([h, noise], 1))) + 1) / 2
        return x * (1 - mask) + made * mask


def _block(a: int, b: int, size: int, stride: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(a, b, size, stride, padding, dilation, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)
    )
