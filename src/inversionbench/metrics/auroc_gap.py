"""AUROC of attribute inference over members minus that over non-members: memorisation without a threshold.

Each value of the attribute is ranked against the rest by its score, and the areas are averaged over the values (one
value against the rest, macro). Unlike balanced accuracy it asks neither for the right prior nor for ties to be drawn.
The interval is of one target, over its records (DeLong, DeLong, Clarke-Pearson, Biometrics 1988, for an average of
areas): 95 %, normal. So that a perfect ranking of few records keeps a variance, each value counts one record more on
either side that is ranked wholly wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from inversionbench.metrics.base import Spec, Unavailable

SPEC = Spec(
    "auroc_gap",
    "AUROC gap",
    unit="points",
    digits=1,
    factor=100,
    direction="higher",
    range=(-1.0, 1.0),
    kind="protocol",
    note="AUROC over members minus over non-members, of the same values: the leak without a threshold",
)
ABSENT = "a value of the attribute is missing among these records"
Z95 = 1.959964


@dataclass(frozen=True)
class AurocGap:
    """gap = members - nonmembers, in [-1, 1]; low, high: its 95 % interval over records."""

    members: float
    nonmembers: float
    gap: float
    low: float
    high: float


def auroc_gap(truth: Any, scores: Any, members: Any, values: Sequence[int]) -> AurocGap | Unavailable:
    """truth: int (n,). scores: finite (n, V), one column for each of the values 0 .. V - 1. members: bool (n,).
    values: what is averaged over; each must be present, and absent, on both sides.

    >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.5, 0.5]])
    >>> found = auroc_gap([0, 1, 0, 1], scores, [True, True, False, False], [0, 1])
    >>> found.members, found.nonmembers, found.gap
    (1.0, 0.5, 0.5)
    """
    t, s, inside = np.asarray(truth), np.asarray(scores, dtype=np.float64), np.asarray(members, dtype=bool)
    if len(values) < 2 or any(not (t[rows] == v).any() for rows in (inside, ~inside) for v in values):
        return Unavailable(ABSENT)
    (a, a_variance), (b, b_variance) = (_macro(t[rows], s[rows], values) for rows in (inside, ~inside))
    reach = Z95 * float(np.sqrt(a_variance + b_variance))
    return AurocGap(a, b, a - b, max(-1.0, a - b - reach), min(1.0, a - b + reach))


def placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the negatives below each positive, and of the positives above each negative; ties count a half. The
    mean of either is the AUROC."""
    p, n = scores[positive], scores[~positive]
    every = rankdata(np.concatenate([p, n]))
    above = (every[: len(p)] - rankdata(p)) / len(n)
    below = 1 - (every[len(p) :] - rankdata(n)) / len(p)
    return above, below


def _macro(truth: np.ndarray, scores: np.ndarray, values: Sequence[int]) -> tuple[float, float]:
    """Average area and its variance: what each record adds to it, squared and summed."""
    areas, influence, imagined = [], np.zeros(len(truth)), 0.0
    for v in values:
        positive = truth == v
        above, below = placements(scores[:, v], positive)
        area = above.mean()
        influence[positive] += (above - area) / len(above)
        influence[~positive] += (below - area) / len(below)
        imagined += (area / len(above)) ** 2 + (area / len(below)) ** 2
        areas.append(area)
    return float(np.mean(areas)), float((np.square(influence).sum() + imagined) / len(values) ** 2)
