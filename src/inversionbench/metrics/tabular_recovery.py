"""Tabular recovery: the accuracy of TabLeak (Vero, Balunovic, Dimitrov, Vechev, ICML 2023).

A row of L features in its original representation (categories as codes, numbers in their units, no label):
acc = 1/L (sum over categories 1[x' = x] + sum over numbers 1[|x' - x| <= 0.319 std_i]), std over the training
data. A batch is matched first, by this very error, never by squared error; so even random rows
(`marginal_rows`, matched the same way) score high: always print them. Categories and numbers are also reported
apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.quantity import Quantity
from inversionbench.metrics._matching import assign
from inversionbench.metrics.base import Spec

TOLERANCE = 0.319  # standard deviations; of the authors' program
SPEC = Spec(
    "tabular_recovery",
    "entries recovered",
    unit="%",
    digits=1,
    factor=100,
    direction="higher",
    range=(0.0, 1.0),
    kind="protocol",
    note=("share of right entries of the rows behind an update, matched; numbers within 0.319 standard deviations"),
)
FURTHER = (
    Quantity(
        "categorical",
        "categorical entries",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of right entries of categorical columns, rows matched",
    ),
    Quantity(
        "numeric",
        "numeric entries",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of entries of numeric columns within 0.319 standard deviations, rows matched",
    ),
    Quantity(
        "whole_rows",
        "whole rows",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of rows with every entry right",
    ),
)


@dataclass(frozen=True)
class TabularRecovery:
    """Per row, float64 (n,) in [0, 1], in the order of the truth. `categorical`, `continuous`: None if the
    table has no such columns. `right`: bool (n, L), what these are means of. `failures`: rows with numbers that
    are not finite (those entries are wrong)."""

    accuracy: np.ndarray
    categorical: np.ndarray | None
    continuous: np.ndarray | None
    permutation: np.ndarray
    right: np.ndarray
    failures: int


def tabular_recovery(
    reconstruction: Any, truth: Any, categorical: Any, std: Any, match: bool = True, groups: Any = None
) -> TabularRecovery:
    """Scores of recovered rows.

    reconstruction, truth: (n, L), n > 0, decoded: category codes and original units. categorical: bool (L,).
    std: (L,) > 0 over the training data (ignored for categories). match: find the row order first, within
    `groups` (n,) if given. Higher means more leakage. Raises `UserError` for other shapes or a std of 0.

    >>> truth = np.array([[1, 0, 10.0, 5.0]])
    >>> guess = np.array([[1, 2, 10.3, 5.35]])
    >>> tabular_recovery(guess, truth, [True, True, False, False], [1, 1, 1, 1]).accuracy
    array([0.5])
    """
    r, t, mask, limit = _checked(reconstruction, truth, categorical, std)
    order = np.arange(len(t))
    if match:
        names = np.zeros(len(t), dtype=np.int64) if groups is None else np.asarray(groups)
        if names.shape != (len(t),):
            raise UserError(f"tabular_recovery: {len(t)} rows need as many group names, got {names.shape}")
        for name in np.unique(names):
            places = np.flatnonzero(names == name)
            cost = np.stack([1 - _right(r[places], row, limit).mean(axis=1) for row in t[places]])
            order[places] = places[assign(cost)]
    right = _right(r[order], t, limit)
    return TabularRecovery(
        accuracy=right.mean(axis=1),
        categorical=right[:, mask].mean(axis=1) if mask.any() else None,
        continuous=right[:, ~mask].mean(axis=1) if not mask.all() else None,
        permutation=order,
        right=right,
        failures=int((~np.isfinite(r)).any(axis=1).sum()),
    )


def marginal_rows(known: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The random baseline: `count` rows whose columns are drawn one by one from those of `known` (m, L)."""
    return np.take_along_axis(known, rng.integers(len(known), size=(count, known.shape[1])), axis=0)


def _right(r: np.ndarray, t: np.ndarray, limit: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.abs(r - t) <= limit


def _checked(
    reconstruction: Any, truth: Any, categorical: Any, std: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, mask of categories, and the largest difference that counts as right: 0 for categories."""
    r, t = np.asarray(reconstruction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    mask, scale = np.asarray(categorical, dtype=bool), np.asarray(std, dtype=np.float64)
    if t.ndim != 2 or 0 in t.shape or r.shape != t.shape:
        raise UserError(
            f"tabular_recovery: truth and reconstruction must be (n, L) of one shape, n > 0, got {t.shape} and "
            f"{r.shape}"
        )
    if mask.shape != (t.shape[1],) or scale.shape != (t.shape[1],):
        raise UserError(
            f"tabular_recovery: categorical and std must have {t.shape[1]} entries, one per column, got "
            f"{mask.shape} and {scale.shape}"
        )
    if not np.isfinite(t).all():
        raise UserError("tabular_recovery: truth holds NaN or infinite values")
    if not (scale[~mask] > 0).all():
        bad = np.flatnonzero(~mask & ~(scale > 0)).tolist()
        raise UserError(f"tabular_recovery: std must be positive, it is not for columns {bad}: leave them out")
    return r, t, mask, np.where(mask, 0.0, TOLERANCE * scale)
