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
TINY = 1e-300
FADING = 0.25
DEVIATION = 1.4826  # of a normal distribution, in median absolute deviations


@dataclass(frozen=True)
class Span:
    """basis: (width, width), orthonormal rows, the first `rank` of them the row space, by falling singular
    `values` (width,). noise: standard deviation of the noise in the gradient, from the other values.
    """

    rank: int
    basis: Tensor
    values: Tensor
    noise: float

    @property
    def rest(self) -> Tensor:
        return self.basis[self.rank :]

    @property
    def full(self) -> bool:
        """Whether every input lies in the span: a normalised layer leaves one direction out by itself."""
        return len(self.rest) <= 1

    def distance(self, v: Tensor) -> Tensor:
        """|| v/||v|| - its projection ||, v: (..., width) -> (...), in [0, 1]."""
        return (v @ self.rest.mT).norm(dim=-1) / v.norm(dim=-1).clamp_min(TINY)

    def excess(self, v: Tensor) -> Tensor:
        """log of the squared distance over what noise alone explains; about 0 for an input of the batch.

        To first order noise of deviation s turns singular direction i, of value a_i, by s / a_i in every
        direction that is left. An input with coordinates c_i in the row space therefore gets the squared distance
        s^2 sum_i (c_i / a_i)^2 chi^2_(width - rank), whatever the noise.
        """
        along = v @ self.basis.mT
        inside, outside = along[..., : self.rank], along[..., self.rank :]
        explained = self.noise**2 * outside.shape[-1] * (inside / self.values[: self.rank]).square().sum(-1)
        return outside.square().sum(-1).clamp_min(TINY).log() - explained.clamp_min(TINY).log()


@dataclass(frozen=True)
class Judge:
    """Which candidates may have been in the batch.

    outlier 0: those closer to the span than `threshold`, which is certain without noise. Else: those whose
    `excess` lies `outlier` deviations below the median of `reference`, vectors of which nearly all were not; and,
    for the next word of a sentence, at least `FADING` of the deviations that its words had so far.
    """

    span: Span
    threshold: float
    outlier: float = 0.0

    def __call__(self, v: Tensor, reference: Tensor, before: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """v: (n, width), reference: (m, width), before: (n,), the mean score of what a candidate extends
        -> (kept, bool (n,); score (n,), smaller is surer)."""
        if not self.outlier:
            distance = self.span.distance(v)
            return distance < self.threshold, distance
        usual = self.span.excess(reference)
        spread = DEVIATION * (usual - usual.median()).abs().median()
        below = (usual.median() - self.span.excess(v)) / spread.clamp_min(TINY)
        return (below > self.outlier) & (below > -FADING * before), -below


def span_of(gradient: Tensor, rule: str, tolerance: float) -> Span:
    """The row space of gradient (outputs, width). rule: how its rank is told.

    tolerance: singular values above `tolerance` times the largest. noise: of those, the ones above what the rest,
    taken as Gaussian noise, would show (`noise_rank`).
    """
    _, values, rows = torch.linalg.svd(gradient.double(), full_matrices=True)
    rank = int((values > tolerance * values[0]).sum())
    if rule == "noise":
        rank = min(rank, noise_rank(values, len(gradient)))
    free = (len(gradient) - rank) * (len(values) - rank)
    return Span(rank, rows, values, float((values[rank:].square().sum() / max(1, free)).sqrt()))


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
