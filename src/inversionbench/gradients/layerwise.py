"""Matching objectives that know the layers of a flat update. All take g (trials, size) and give (trials,)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inversionbench.core.errors import UserError, suggest
from inversionbench.gradients.layout import Layout
from inversionbench.gradients.objectives import TINY, support

DEAD = 1e-12  # a layer whose observed norm is below this takes no part
SHARPNESS = 3.0  # k of the weights exp(k l / P)
SCHEDULES = ("linear", "exponential", "flat")


def depth_weights(layout: Layout, schedule: str) -> Tensor:
    """A weight per entry (size,), growing from the input to the output and with mean 1 over layers.

    linear: l / P for layer l of P. exponential: exp(3 l / P). flat: 1. Weight and bias of a layer are equal.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"unknown layer weights '{schedule}': {suggest(schedule, SCHEDULES)}")
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in layout.names))
    depth = torch.arange(1, len(layers) + 1) / len(layers)
    w = {"linear": depth, "exponential": torch.exp(SHARPNESS * depth), "flat": torch.ones(len(layers))}[schedule]
    w = w / w.mean()
    each = [w[layers.index(name.rpartition(".")[0])] for name in layout.names]
    sizes = torch.tensor([s.stop - s.start for s in layout.slices])
    return torch.repeat_interleave(torch.stack(each), sizes)


def first_active(layout: Layout, first: int) -> Tensor:
    """1 for the entries of parameter tensor number `first` and all behind it, else 0; tensors count from 1."""
    out = torch.zeros(layout.size)
    out[layout.slices[first - 1].start :] = 1
    return out


@dataclass(frozen=True)
class LayerCosine:
    """sum_l omega_l (1 - cosine of tensor l), omega_l = ||g_l|| / sum_k ||g_k|| of the observed update.

    Entries that were observed as exactly 0 are not compared; tensors with an observed norm below 1e-12 are
    left out. Blind to a factor common to all tensors, and to a factor of one tensor up to omega.
    """

    observed: Tensor
    layout: Layout
    units: list[Tensor] = field(init=False)
    weights: Tensor = field(init=False)
    sent: Tensor = field(init=False)

    def __post_init__(self) -> None:
        parts = [self.observed[:, s] for s in self.layout.slices]
        norms = torch.stack([p.norm(dim=1) for p in parts], dim=1)
        norms = torch.where(norms < DEAD, 0.0, norms)
        units = [p / n.clamp_min(TINY)[:, None] for p, n in zip(parts, norms.unbind(1))]
        object.__setattr__(self, "units", units)
        object.__setattr__(self, "weights", norms / norms.sum(1, keepdim=True).clamp_min(TINY))
        object.__setattr__(self, "sent", support(self.observed))

    def __call__(self, g: Tensor) -> Tensor:
        g = g * self.sent
        cos = [
            torch.linalg.vecdot(g[:, s], u) / g[:, s].norm(dim=1).clamp_min(TINY)
            for s, u in zip(self.layout.slices, self.units)
        ]
        return (self.weights * (1 - torch.stack(cos, dim=1))).sum(1)


@dataclass(frozen=True)
class LayerNorms:
    """sum_l ||g_l(x) - g_l||_2, a norm per tensor, not squared (Yin et al. 2021, eq. 2)."""

    observed: Tensor
    layout: Layout

    def __call__(self, g: Tensor) -> Tensor:
        gap = g - self.observed
        return torch.stack([gap[:, s].norm(dim=1) for s in self.layout.slices], dim=1).sum(1)


def stage_starts(tensors: int, first: float, last: float, stages: int) -> list[int]:
    """From which tensor on to match, stage by stage: from ceil(first * P) down to ceil(last * P), evenly.

    >>> stage_starts(10, 0.9, 0.23, 4)
    [9, 7, 5, 3]
    """
    high, low = max(1, math.ceil(first * tensors)), max(1, math.ceil(last * tensors))
    if stages < 2 or high == low:
        return [low]
    return [round(high + (low - high) * i / (stages - 1)) for i in range(stages)]
