"""A first layer that replaces parts of an image by a picture of their perceptual hash; see the defense of that name."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.errors import UserError

SIDE = 32  # to which phash enlarges a block


class HashedParts(nn.Module):
    """Images (n, c, h, w) in [0, 1] -> the same with hashed blocks. passes: what comes back through a hashed block is
    the gradient of soft bits, sigmoid of their distance to the threshold in standard deviations of the block; else 0,
    as it truly is."""

    def __init__(self, share: float, grid: int, size: int, kind: str):
        super().__init__()
        self.share, self.grid, self.size, self.kind, self.passes = share, grid, size, kind, False

    def forward(self, x: Tensor) -> Tensor:
        where = self.where(x)
        found = self.compared(x if self.passes else x.detach())
        hard, soft = self.render(found > 0, x), self.render(found.sigmoid(), x)
        return torch.where(where, hard + (soft - soft.detach()), x)

    def where(self, x: Tensor) -> Tensor:
        """Which pixels are hashed: bool (1, 1, h, w)."""
        g, (h, w) = self.grid, x.shape[-2:]
        if h % g or w % g:
            raise UserError(f"perceptual_hashing: images of {h} x {w} pixels have no {g} x {g} equal blocks")
        at = torch.arange(g) - (g - 1) / 2
        order = (at[:, None].square() + at.square()).flatten().argsort(stable=True)
        on = torch.zeros(g * g, dtype=torch.bool)
        on[order[: round(self.share * g * g)]] = True
        return on.view(1, 1, g, g).repeat_interleave(h // g, 2).repeat_interleave(w // g, 3).to(x.device)

    def bits(self, x: Tensor) -> Tensor:
        """The hash of every block: bool (n, grid, grid, size^2)."""
        return self.compared(x) > 0

    def compared(self, x: Tensor) -> Tensor:
        """What the bits are the signs of, in standard deviations of the block: (n, grid, grid, size^2)."""
        n, _, h, w = x.shape
        a, b = h // self.grid, w // self.grid
        grey = x.mean(1).view(n, self.grid, a, self.grid, b).transpose(2, 3).reshape(n, self.grid, self.grid, a * b)
        found = grey @ projection(self.kind, a, b, self.size).to(x).T
        if self.kind == "phash":
            found = found - found.median(-1, keepdim=True).values
        elif self.kind == "ahash":
            found = found - found.mean(-1, keepdim=True)
        return found / found.detach().std(-1, keepdim=True).clamp_min(1e-6)

    def render(self, bits: Tensor, like: Tensor) -> Tensor:
        """Bits, hard or soft, as black and white pixels of an image of the shape of `like`, equal in all channels."""
        n, c, h, w = like.shape
        a, b = h // self.grid, w // self.grid
        fields = bits.view(-1, 1, self.size, self.size).to(like)
        blocks = F.interpolate(fields, (a, b), mode="nearest").view(n, self.grid, self.grid, a, b)
        return blocks.transpose(2, 3).reshape(n, 1, h, w).expand(n, c, h, w)


@cache
def projection(kind: str, height: int, width: int, size: int) -> Tensor:
    """What is compared, as a matrix (size^2, height width) on the pixels of a block: each of these is linear."""
    basis = torch.eye(height * width).view(-1, 1, height, width)

    def resized(to: tuple[int, int]) -> Tensor:
        return F.interpolate(basis, to, mode="bilinear", align_corners=False, antialias=True)[:, 0]

    if kind == "phash":
        found = cosines(size) @ resized((SIDE, SIDE)) @ cosines(size).T
    elif kind == "ahash":
        found = resized((size, size))
    else:
        wide = resized((size, size + 1))
        found = wide[:, :, 1:] - wide[:, :, :-1]
    return found.flatten(1).T.contiguous()


def cosines(size: int) -> Tensor:
    """The first rows (size, SIDE) of the DCT-II of SIDE values, orthonormal."""
    k, at = torch.arange(size)[:, None], torch.arange(SIDE) + 0.5
    rows = torch.cos(math.pi * k * at / SIDE) * math.sqrt(2 / SIDE)
    return torch.where(k == 0, rows / math.sqrt(2), rows)
