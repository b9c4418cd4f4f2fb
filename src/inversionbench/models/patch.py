"""A critic that sees patches and not images (Patch-MI)."""

from __future__ import annotations

from torch import Tensor, nn


class PatchCritic(nn.Module):
    """image (n, channels, side, side) in [0, 1] -> mean over patch positions of one logit each: (n,).

    A convolution cuts `patch` x patch squares every `stride` pixels, with `padding` around; two 1x1
    convolutions and a last one judge each square alone. norm: instance normalisation in between, as published;
    it mixes the squares of one image, so without it the score of an image is exactly that of its patches in
    any order.
    """

    def __init__(self, width: int, channels: int, patch: int, stride: int, padding: int, norm: bool = True):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, patch, stride, padding), nn.LeakyReLU(0.2)]
        for _ in range(2):
            layers.append(nn.Conv2d(width, width, 1))
            if norm:
                layers.append(nn.InstanceNorm2d(width, affine=True))
            layers.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1).mean((1, 2, 3))
