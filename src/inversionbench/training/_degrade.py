"""Photographs made worse as reconstructions are: coarse, blurred, noisy, compressed, put together from few parts.

Images are (n, channels, height, width) in [0, 1]. Every image gets at most one of each stage, half of them none; how
much of it is drawn anew for every batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 8  # of the cosine transform
LEARN, MOST = 500, 128  # photographs that a linear generator is made of, and its components


@dataclass(frozen=True)
class Linear:
    """The principal components of photographs as a generator. mean: (d,); basis: (components, d), orthonormal."""

    mean: Tensor
    basis: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Linear:
        """From images (n, ...), n > 1, by the eigenvectors of their inner products (n x n, not d x d)."""
        flat = x.flatten(1)
        mean = flat.mean(0)
        flat = flat - mean
        values, vectors = torch.linalg.eigh(flat @ flat.T)
        keep = values > 1e-6 * values[-1]
        basis = (vectors[:, keep].T @ flat) / values[keep].sqrt()[:, None]
        return cls(mean, basis.flip(0)[:MOST])

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """The images that lie nearest to x among those of the first 16 to `MOST` components."""
        k = int(len(self.basis) * 2 ** -_uniform(0, 3, rng))
        basis = self.basis[: max(k, 1)]
        flat = self.mean + (x.flatten(1) - self.mean) @ basis.T @ basis
        return flat.view_as(x).clamp(0, 1)


def coarse(x: Tensor, rng: torch.Generator) -> Tensor:
    """Down to between a third and three quarters of the side, and back: bilinear (as blur) or in blocks."""
    side = max(2, round(x.shape[-1] * _uniform(0.35, 0.75, rng)))
    mode = "nearest" if _uniform(0, 1, rng) < 0.25 else "bilinear"
    return F.interpolate(F.adaptive_avg_pool2d(x, side), x.shape[2:], mode=mode)


def noisy(x: Tensor, rng: torch.Generator) -> Tensor:
    """Gaussian noise of standard deviation up to 0.15."""
    return (x + _uniform(0, 0.15, rng) * torch.randn(x.shape, generator=rng).to(x)).clamp(0, 1)


def compressed(x: Tensor, rng: torch.Generator) -> Tensor:
    """Cosine transform in blocks of 8 x 8, rounded in steps that grow with the frequency, as JPEG rounds."""
    height, width = x.shape[2:]
    padded = F.pad(x, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    k = torch.arange(BLOCK, dtype=x.dtype, device=x.device)
    basis = torch.cos(math.pi / BLOCK * (k[None] + 0.5) * k[:, None]) * (2 / BLOCK) ** 0.5
    basis[0] /= 2**0.5
    step = _uniform(0.02, 0.12, rng) * (1 + k[:, None] + k[None])
    tiles = padded.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)  # (n, c, rows, columns, 8, 8)
    seen = ((basis @ tiles @ basis.T) / step).round() * step
    tiles = basis.T @ seen @ basis
    return tiles.transpose(3, 4).reshape(padded.shape)[:, :, :height, :width].clamp(0, 1)


def degrade(x: Tensor, generator: Linear, rng: torch.Generator) -> Tensor:
    """Each image with at most one of each stage."""
    for stage in ((coarse, generator), (noisy, compressed)):
        kind = torch.randint(2 * len(stage), (len(x),), generator=rng).to(x.device)
        for i, worsen in enumerate(stage):
            rows = (kind == i).nonzero()[:, 0]
            if len(rows):
                x = x.index_copy(0, rows, worsen(x[rows], rng))
    return x


def _uniform(low: float, high: float, rng: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand(1, generator=rng))
