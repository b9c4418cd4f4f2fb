"""One answer from many restarts: rows matched to the best restart, cells pooled, doubt per cell.

A gradient does not tell the order of its batch, so every restart finds the rows in another order. Rows are
matched by linear assignment on the record error: the mean over columns of 1 where categories differ or
numbers lie further apart than 0.319 standard deviations.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from inversionbench.metrics._matching import assign
from inversionbench.metrics.tabular_recovery import TOLERANCE
from inversionbench.models.rows import Schema

RULES = ("median", "mean", "best")
SMALLEST = 1e-6  # standard deviation of restarts that agree to the last bit


def record_errors(rows: Tensor, reference: Tensor, schema: Schema) -> Tensor:
    """rows (members, B, columns), reference (B, columns), decoded -> (members, B of reference, B of rows)."""
    categorical = torch.as_tensor(schema.categorical)
    limit = torch.where(categorical, torch.zeros_like(schema.unit), TOLERANCE * schema.unit)
    return ((rows[:, None] - reference[None, :, None]).abs() > limit).double().mean(-1)


def align(rows: Tensor, reference: Tensor, schema: Schema) -> Tensor:
    """The place in each member of every row of the reference: int64 (members, B)."""
    costs = record_errors(rows, reference, schema).numpy()
    return torch.from_numpy(np.stack([assign(cost) for cost in costs]))


def pool(shares: Tensor, rule: str) -> Tensor:
    """Matched members (members, B, width), as encoded -> (B, width): median or mean of every place."""
    values = shares.double().numpy()
    return torch.from_numpy(np.median(values, axis=0) if rule == "median" else values.mean(axis=0))


def doubt(pooled: Tensor, members: Tensor, schema: Schema) -> Tensor:
    """How unsure each cell is, (B, columns); low means sure. Comparable within a kind of column only.

    Categories: entropy of the pooled block, scaled to sum 1, over log V, in [0, 1]. Numbers: differential
    entropy of a normal distribution with the standard deviation s of the members, (1 + log(2 pi s^2)) / 2.
    pooled: (B, width); members: (members, B, width), matched.
    """
    out = torch.zeros(len(pooled), len(schema.names), dtype=torch.float64)
    for i, (start, stop) in enumerate(schema.blocks):
        if schema.categorical[i]:
            p = pooled[:, start:stop].double().clamp_min(0)
            p = p / p.sum(1, keepdim=True).clamp_min(1e-12)
            out[:, i] = torch.special.entr(p).sum(1) / math.log(max(2, stop - start))
        else:
            s = members[:, :, start].double().std(dim=0, correction=0).clamp_min(SMALLEST)
            out[:, i] = 0.5 + 0.5 * (2 * math.pi * s.square()).log()
    return out
