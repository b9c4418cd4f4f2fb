"""Which reconstruction belongs to which original.

A gradient does not tell the order of its batch, so a batch of B reconstructions is first brought into the
order of the originals: one linear assignment on the B x B matrix of mean squared errors, used for every
metric of that batch. No reconstruction is used twice, and no metric has an order of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Images, check_same_shape

LARGEST = 5000  # one group: the cost matrix has its square as entries, the assignment takes seconds
BUDGET = 1 << 24  # float64 values that a block of groups may take at once


def assign(cost: np.ndarray) -> np.ndarray:
    """The cheapest one-to-one assignment: cost (B, B) -> int64 (B,), the column of each row.

    Entries that are not finite cost more than all others together.

    >>> assign(np.array([[1.0, 0.0], [0.0, np.nan]]))
    array([1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or not len(cost):
        raise UserError(f"matching: the cost matrix must be square, B x B with B > 0, got {cost.shape}")
    finite = np.isfinite(cost)
    if not finite.all():
        worst = 1.0 + len(cost) * np.abs(cost[finite]).max(initial=0.0)
        cost = np.where(finite, cost, worst)
    return linear_sum_assignment(cost)[1]


def match(truth: Images, reconstruction: Images) -> np.ndarray:
    """The order of one batch: reconstruction[permutation[i]] belongs to truth[i].

    truth, reconstruction: float (B, ...) of one shape, B > 0, raw scale. Returns int64 (B,), a permutation
    that minimises the sum of mean squared errors; reconstructions with pixels that are not finite take the
    originals that are left. Raises `UserError` for unequal or empty shapes.

    >>> x = torch.tensor([[0.0], [1.0], [2.0]])
    >>> match(x, x[[2, 0, 1]])
    array([1, 2, 0])
    """
    return match_groups(truth, reconstruction, np.zeros(len(truth), dtype=np.int64))


def match_groups(truth: Images, reconstruction: Images, groups: np.ndarray) -> np.ndarray:
    """The order of many batches at once: `groups` (n,) names the batch of each original and of each
    reconstruction at the same place. Returns int64 (n,): no reconstruction leaves its batch.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> match_groups(x, x[[1, 0, 3, 2]], np.array([0, 0, 7, 7]))
    array([1, 0, 3, 2])
    """
    t, r = torch.as_tensor(truth).detach(), torch.as_tensor(reconstruction).detach()
    check_same_shape(t, r, "matching")
    groups = np.asarray(groups)
    if groups.shape != (len(t),) or not len(t):
        raise UserError(f"matching: {len(t)} images need as many group names, got shape {groups.shape}")
    permutation = np.empty(len(t), dtype=np.int64)
    for members in _by_size(groups):
        count, size = members.shape
        if size > LARGEST:
            raise UserError(
                f"matching: {size} images in one group, at most {LARGEST}: name the batches (`groups`, or --batch)"
            )
        step = max(1, BUDGET // (2 * size * t[0].numel() + size * size))
        for start in range(0, count, step):
            block = members[start : start + step]
            for places, cost in zip(block, _costs(t[block], r[block])):
                permutation[places] = places[assign(cost)]
    return permutation


def _by_size(groups: np.ndarray) -> list[np.ndarray]:
    """Places of the members of each group, groups of one size together: arrays (groups, size)."""
    order = np.argsort(groups, kind="stable")
    sizes = np.unique(groups, return_counts=True)[1]
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [np.stack([p for p in parts if len(p) == size]) for size in np.unique(sizes)]


def _costs(truth: Tensor, reconstruction: Tensor) -> np.ndarray:
    """Mean squared errors (groups, B, B) between images (groups, B, ...), truth by reconstruction."""
    t, r = truth.double().flatten(2), reconstruction.to(truth.device).double().flatten(2)
    squares = t.square().sum(-1)[:, :, None] + r.square().sum(-1)[:, None, :]
    return ((squares - 2 * t @ r.transpose(1, 2)) / t.shape[-1]).cpu().numpy()
