"""Pooling cells over seeds: mean, median and 95 % interval, and differences with an interval.

The unit that is resampled is the attacked target (client batch, class, record): values of one target from
several seeds, restarts or reconstructions stay together. Where there is one target only, the unit is the
seed; where there is one value only, there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inversionbench.metrics import interval

NAN = math.nan


@dataclass(frozen=True)
class Pooled:
    """One entry of a table. n: values; units: resampled targets (or seeds); seeds: cells with an answer.

    status: "ok", "partial" (some seeds gave no answer) or the status of the cells; `reason` says why.
    """

    mean: float = NAN
    low: float = NAN
    high: float = NAN
    median: float = NAN
    n: int = 0
    units: int = 0
    seeds: int = 0
    status: str = "absent"
    reason: str = ""


def pool(rows: pd.DataFrame) -> Pooled:
    """Rows of one metric, one per seed -> one entry.

    >>> rows = pd.DataFrame({"seed": [0, 1], "status": ["ok", "failed"], "reason": ["", "out of memory"],
    ...                      "values": [[1.0, 3.0], []], "groups": [["a", "b"], []]})
    >>> entry = pool(rows)
    >>> entry.mean, entry.n, entry.units, entry.status, entry.reason
    (2.0, 2, 2, 'partial', 'seed 1: out of memory')
    """
    if rows.empty:
        return Pooled()
    has = np.array([len(v) > 0 for v in rows["values"]])
    reason = _reasons(rows)
    if not has.any():
        return Pooled(status=str(rows["status"].iloc[0]), reason=reason)
    answered = rows[has]
    values = np.concatenate([np.asarray(v, float) for v in answered["values"]])
    units = _units(answered["seed"], answered["groups"])
    low, high = interval(values, units)
    return Pooled(float(values.mean()), low, high, float(np.median(values)), len(values), len(np.unique(units)),
                  len(answered), "ok" if has.all() and not reason else "partial", reason)


@dataclass(frozen=True)
class Difference:
    """Defended minus undefended; pairs: values that both sides have for one seed and target."""

    mean: float = NAN
    low: float = NAN
    high: float = NAN
    pairs: int = 0


def difference(defended: pd.DataFrame, undefended: pd.DataFrame) -> Difference:
    """Mean difference over the (seed, target) pairs that both sides have, with its interval.

    Seed and target fix the attacked sample, so the difference is paired; an unpaired difference is given
    without interval, because the two sides then saw different samples.
    """
    a, b = _by_subject(defended), _by_subject(undefended)
    common = a.index.intersection(b.index)
    if not len(a) or not len(b):
        return Difference()
    if not len(common):
        return Difference(float(a.mean() - b.mean()))
    paired = (a[common] - b[common]).sort_index()
    seeds, groups = paired.index.get_level_values(0), paired.index.get_level_values(1)
    units = groups if groups.nunique() > 1 else seeds
    low, high = interval(paired.to_numpy(), units.to_numpy())
    return Difference(float(paired.mean()), low, high, len(paired))


def _units(seeds: Sequence[int], groups: Sequence[Sequence[str]]) -> np.ndarray:
    flat = np.array([g for cell in groups for g in cell], dtype=object)
    if len(set(flat)) > 1:
        return flat.astype(str)
    return np.array([str(s) for s, cell in zip(seeds, groups, strict=True) for _ in cell])


def _by_subject(rows: pd.DataFrame) -> pd.Series:
    """Mean value per (seed, target)."""
    parts = [(s, g, v) for s, groups, values in zip(rows["seed"], rows["groups"], rows["values"], strict=True)
             for g, v in zip(groups, values, strict=True)]
    flat = pd.DataFrame(parts, columns=["seed", "group", "value"])
    return flat.groupby(["seed", "group"])["value"].mean()


def _reasons(rows: pd.DataFrame) -> str:
    """Why there is no answer; with the seeds, where it holds for some only."""
    by: dict[str, list[str]] = {}
    for seed, status, reason in zip(rows["seed"], rows["status"], rows["reason"], strict=True):
        if status != "ok":
            by.setdefault(str(reason) or str(status), []).append(str(seed))
    if [len(rows)] == [len(seeds) for seeds in by.values()]:
        return next(iter(by))
    return "; ".join(f"seed {', '.join(seeds)}: {reason}" for reason, seeds in by.items())
