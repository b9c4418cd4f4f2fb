"""From per-image values to what a table shows: mean, median, extremes, number, and a 95 % interval.

`interval` resamples targets, not values: with several seeds, restarts or reconstructions per target the
values of one target are not independent, and `groups` keeps them together. A share of which all values are 0,
or all 1, gets Wilson's interval over the targets: a bootstrap of equal values has no width.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from inversionbench.errors import UserError

DRAWS = 2000
LEVEL = 0.95
_BLOCK = 1 << 21  # resampled places held at once


@dataclass(frozen=True)
class Summary:
    """One entry of a table; `low`, `high` are None where there are fewer than two targets.

    `n`: values used; `targets`: resampled units; `undefined`: values that were NaN and left out.
    """

    mean: float
    median: float
    min: float
    max: float
    n: int
    targets: int
    undefined: int
    low: float | None
    high: float | None

    def record(self) -> dict[str, Any]:
        return asdict(self)


def summarise(values: Any, groups: Any = None, seed: int = 0, share: bool = False) -> Summary:
    """Summary of `values` (n,); NaN marks a value that is undefined. `groups`, `share`: as for `interval`.

    Raises `UserError` when no value is defined.

    >>> s = summarise([1.0, 2.0, 6.0, float("nan")])
    >>> s.mean, s.median, s.min, s.max, s.n, s.undefined
    (3.0, 2.0, 1.0, 6.0, 3, 1)
    """
    x, g = _checked(values, groups, allow_nan=True)
    keep = ~np.isnan(x)
    if not keep.any():
        raise UserError("summary: none of the values is defined")
    x, g = x[keep], g[keep]
    low, high = interval(x, g, seed, share=share)
    bounded = not math.isnan(low)
    return Summary(
        mean=float(x.mean()),
        median=float(np.median(x)),
        min=float(x.min()),
        max=float(x.max()),
        n=len(x),
        targets=len(np.unique(g)),
        undefined=int((~keep).sum()),
        low=low if bounded else None,
        high=high if bounded else None,
    )


def interval(
    values: Any, groups: Any = None, seed: int = 0, draws: int = DRAWS, level: float = LEVEL, share: bool = False
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (n,), finite.

    groups: (n,) the target of each value (seeds x targets: the target's index); targets are drawn with
    replacement, all values of a drawn target go with it. Without groups every value is its own target.
    share: the values are hits or shares in [0, 1]; where all are 0, or all 1, the interval is `wilson`'s with
    the targets as its units (8 of 8 people recognised does not mean that everybody would be).
    Returns (low, high), both NaN for fewer than two targets: one target has no interval. Below about ten
    targets the interval is too narrow, as percentile intervals are. Raises `UserError` for empty, non-finite
    or unequally long input.

    >>> low, high = interval([0.0, 1.0] * 50)
    >>> round(low, 2), round(high, 2)
    (0.4, 0.6)
    >>> tuple(round(v, 2) for v in interval([0.0] * 8, share=True))
    (0.0, 0.32)
    """
    x, g = _checked(values, groups)
    _, place = np.unique(g, return_inverse=True)
    sums, counts = np.bincount(place, weights=x), np.bincount(place)
    k = len(sums)
    if k < 2:
        return math.nan, math.nan
    if share and x[0] in (0, 1) and (x == x[0]).all():
        return wilson(k * float(x[0]), k, level)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, draws, max(1, _BLOCK // k)):
        picked = rng.integers(k, size=(min(max(1, _BLOCK // k), draws - start), k))
        means.append(sums[picked].sum(1) / counts[picked].sum(1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson(k: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion: `k` of `n`, 0 <= k <= n, n > 0.

    `k` may be fractional (mean accuracy times the number of classes, where classes are the units).

    >>> tuple(round(v, 4) for v in wilson(5, 10))
    (0.2366, 0.7634)
    >>> tuple(round(v, 4) for v in wilson(0, 10))
    (0.0, 0.2775)
    """
    if not n > 0 or not 0 <= k <= n:
        raise UserError(f"wilson: expected 0 <= k <= n and n > 0, got k = {k}, n = {n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half) if k else 0.0, min(1.0, centre + half) if k < n else 1.0


def _checked(values: Any, groups: Any, allow_nan: bool = False) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(values, dtype=np.float64)
    g = np.arange(len(x)) if groups is None and x.ndim == 1 else np.asarray(groups)
    if x.ndim != 1 or not len(x) or g.shape != x.shape:
        raise UserError(f"interval: expected values (n,) and groups (n,), n > 0, got {x.shape} and {g.shape}")
    bad = np.isinf(x) if allow_nan else ~np.isfinite(x)
    if bad.any():
        raise UserError(f"interval: {int(bad.sum())} of {len(x)} values are not finite")
    return x, g
