"""Inversion networks that read scores and explanation maps (Zhao et al., ICCV 2021, section 3).

Input: one vector (n, values + maps * height * width), the log-scores and then the maps, as `packed` lays them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inversionbench.models.inverse import Inverse, log_scores


def packed(scores: Tensor, maps: Tensor | None) -> Tensor:
    """scores: (n, values); maps: (n, maps, height, width) or None."""
    seen = log_scores(scores)
    return seen if maps is None else torch.cat([seen, maps.flatten(1)], 1)


def network(form: str, values: int, maps: tuple[int, ...], shape: tuple[int, int, int], width: int) -> nn.Module:
    """prediction: the scores alone; flatten: everything as one vector into fully connected and transposed layers; unet:
    maps through an encoder with skip connections, scores at its bottleneck; flatten_unet: there the flattened maps as
    well. maps: shape of the maps of one image."""
    if form in ("unet", "flatten_unet"):
        return UNet(values, maps, shape, width, form == "flatten_unet")
    flat = maps[0] * maps[1] * maps[2] if form == "flatten" else 0
    return Inverse((values + flat,), shape, width)


class UNet(nn.Module):
    """Three levels of 1, 2, 4 x width channels at the size of the image, a half and a quarter of it."""

    def __init__(self, values: int, maps: tuple[int, ...], shape: tuple[int, int, int], width: int, flatten: bool):
        super().__init__()
        if shape[1] % 4 or shape[2] % 4 or maps[1:] != shape[1:]:
            raise ValueError(f"expected maps of the image's size, a multiple of 4, got {maps} for {shape}")
        self.values, self.maps, w = values, maps, width
        self.scores = nn.BatchNorm1d(values, affine=False)
        self.spread = nn.BatchNorm2d(maps[0], affine=False)
        self.fine, self.middle, self.deep = _conv(maps[0], w), _conv(w, 2 * w, 2), _conv(2 * w, 4 * w, 2)
        pixels = maps[0] * maps[1] * maps[2]
        self.flat = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 4 * w), nn.BatchNorm1d(4 * w), nn.ReLU()) \
            if flatten else None  # fmt: skip
        self.bottom = _conv(4 * w + values + (4 * w if flatten else 0), 4 * w)
        self.to_half, self.to_fine = nn.ConvTranspose2d(4 * w, 2 * w, 2, 2), nn.ConvTranspose2d(2 * w, w, 2, 2)
        self.at_half, self.at_fine = _conv(4 * w, 2 * w), _conv(2 * w, w)
        self.out = nn.Conv2d(w, shape[0], 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        e = self.spread(z[:, self.values :].unflatten(1, self.maps))
        fine = self.fine(e)
        half = self.middle(fine)
        deep = self.deep(half)
        told = [self.scores(z[:, : self.values])] + ([self.flat(e)] if self.flat else [])
        x = self.bottom(torch.cat([deep, *(t[:, :, None, None].expand(-1, -1, *deep.shape[2:]) for t in told)], 1))
        x = self.at_half(torch.cat([self.to_half(x), half], 1))
        x = self.at_fine(torch.cat([self.to_fine(x), fine], 1))
        return torch.sigmoid(self.out(x))


def _conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
