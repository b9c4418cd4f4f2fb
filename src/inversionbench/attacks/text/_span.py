"""The row space of a projection's gradient, and how far a vector lies from it.

For Y = X W^T over all places of a batch, dL/dW = (dL/dY)^T X: its rows are combinations of the rows of X. While
the batch has fewer different inputs than the width, that space is a proper subspace, and an input that was not
there lies outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RULES = ("tolerance", "noise")


@dataclass(frozen=True)
class Span:
    """rank: dimensions of the row space. rest: (width - rank, width), an orthonormal basis of what is left."""

    rank: int
    rest: Tensor

    @property
    def full(self) -> bool:
        """Whether every input lies in the span: a normalised layer leaves one direction out by itself."""
        return len(self.rest) <= 1

    def distance(self, v: Tensor) -> Tensor:
        """|| v/||v|| - its projection ||, v: (..., width) -> (...), in [0, 1]."""
        return (v @ self.rest.mT).norm(dim=-1) / v.norm(dim=-1).clamp_min(1e-300)


def span_of(gradient: Tensor, rule: str, tolerance: float) -> Span:
    """The row space of gradient (outputs, width). rule: how its rank is told.

    tolerance: singular values above `tolerance` times the largest. noise: those above what the rest, taken as
    Gaussian noise, would show (`noise_rank`).
    """
    _, values, rows = torch.linalg.svd(gradient.double(), full_matrices=True)
    if rule == "noise":
        rank = noise_rank(values, len(gradient))
    else:
        rank = int((values > tolerance * values[0]).sum()) if values[0] > 0 else 0
    return Span(rank, rows[rank:])


def noise_rank(values: Tensor, outputs: int) -> int:
    """How many of the singular values of a matrix (outputs, width) stand above its noise.

    The smallest r for which the next value is no larger than the largest that Gaussian noise of the standard
    deviation of the remaining ones would have, s (sqrt(outputs - r) + sqrt(width - r)), to two per cent.

    >>> g = torch.Generator().manual_seed(0)
    >>> low = torch.randn(60, 5, generator=g) @ torch.randn(5, 40, generator=g)
    >>> noisy = low + 0.1 * torch.randn(60, 40, generator=g)
    >>> noise_rank(torch.linalg.svdvals(noisy.double()), 60)
    5
    """
    width = len(values)
    left = values.square().flip(0).cumsum(0).flip(0)  # sum of squares from each value on
    r = torch.arange(width, dtype=torch.float64)
    deviation = (left / ((outputs - r) * (width - r))).sqrt()
    edge = 1.02 * deviation * ((outputs - r).sqrt() + (width - r).sqrt())
    fits = torch.nonzero(values <= edge).flatten()
    return int(fits[0]) if len(fits) else width
