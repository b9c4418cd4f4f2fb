"""From free numbers to rows: the structural relaxation of TabLeak, and its absence.

u: (..., width) in the space that the network is fed. A categorical block is brought back to zeros and ones
(std * u + mean), softened by a softmax over its places and standardised again; a number runs through a
sigmoid between its bounds. Everything stays a valid mixture of rows, and one step can move a whole category.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inversionbench.models.rows import Schema

STEEP = 60.0  # exp of it is far from the largest float32


@dataclass(frozen=True)
class Relaxation:
    """u -> fed rows r(u), both (..., width)."""

    schema: Schema
    on: bool = True

    def __call__(self, u: Tensor) -> Tensor:
        if not self.on:
            return u
        s = self.schema
        weight = (u * s.std + s.mean).clamp(-STEEP, STEEP).exp()
        share = weight / (weight @ s.member + (s.member.sum(0) == 0))  # numeric places divide by 1
        out = (share - s.mean) / s.std
        low, high = s.bounds
        numbers = low + (high - low) * torch.sigmoid(u[..., s.places])
        return torch.index_copy(out, -1, s.places, numbers)

    def shares(self, fed: Tensor) -> Tensor:
        """Fed rows as shares of categories, at least 0, and standardised numbers: (..., width), as encoded."""
        x = fed * self.schema.std + self.schema.mean
        categorical = self.schema.member.sum(0) > 0
        return torch.where(categorical, x.clamp_min(0), x)
