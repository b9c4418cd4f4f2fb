"""Pooling cells over seeds: mean, median and 95 % interval, and differences with an interval.

The unit that is resampled is the attacked target (client batch, class, record): values of one target from
several seeds, restarts or reconstructions stay together. Where there is one target only, the unit is the
seed; where there is one value only, there is no interval. A share that is 0, or 1, for every target has
Wilson's interval over the targets, since a bootstrap of equal values has no width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inversionbench.metrics import interval
from inversionbench.survey import words

NAN = math.nan
Row = Mapping[str, Any]  # one row of the tidy frame: `frame.to_dict("records")` is much faster than the frame


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


def pool(rows: Sequence[Row]) -> Pooled:
    """Rows of one metric, one per seed -> one entry.

    >>> entry = pool([{"seed": 0, "status": "ok", "reason": "", "values": [1.0, 3.0], "groups": ["a", "b"]},
    ...               {"seed": 1, "status": "failed", "reason": "out of memory", "values": [], "groups": []}])
    >>> entry.mean, entry.n, entry.units, entry.status, entry.reason
    (2.0, 2, 2, 'partial', 'seed 1: out of memory')
    """
    if not rows:
        return Pooled()
    answered = [row for row in rows if len(row["values"])]
    reason = _reasons(rows)
    if not answered:
        return Pooled(status=rows[0]["status"], reason=reason)
    values = np.concatenate([np.asarray(row["values"], float) for row in answered])
    units = _units([(row["seed"], group) for row in answered for group in row["groups"]])
    targets = {group for row in answered for group in row["groups"]}
    share = len(targets) > 1 and words.metric(rows[0].get("metric", "")).unit == "%"
    low, high = interval(values, units, share=share)
    whole = len(answered) == len(rows) and not reason
    return Pooled(float(values.mean()), low, high, float(np.median(values)), len(values), len(set(units)),
                  len(answered), "ok" if whole else "partial", reason)


@dataclass(frozen=True)
class Difference:
    """Defended minus undefended; pairs: values that both sides have for one seed and target."""

    mean: float = NAN
    low: float = NAN
    high: float = NAN
    pairs: int = 0


def difference(defended: Sequence[Row], undefended: Sequence[Row]) -> Difference:
    """Mean difference over the (seed, target) pairs that both sides have, with its interval.

    Seed and target fix the attacked sample, so the difference is paired; an unpaired difference is given
    without interval, because the two sides then saw different samples.
    """
    a, b = _by_subject(defended), _by_subject(undefended)
    if not a or not b:
        return Difference()
    common = sorted(a.keys() & b.keys())
    if not common:
        return Difference(float(np.mean(list(a.values())) - np.mean(list(b.values()))))
    paired = np.array([a[key] - b[key] for key in common])
    low, high = interval(paired, _units(common))
    return Difference(float(paired.mean()), low, high, len(paired))


def _units(places: Sequence[tuple[Any, str]]) -> list[str]:
    """What is resampled: the target of each (seed, target), or the seed where there is one target only."""
    targets = [group for _, group in places]
    return targets if len(set(targets)) > 1 else [str(seed) for seed, _ in places]


def _by_subject(rows: Sequence[Row]) -> dict[tuple[Any, str], float]:
    """Mean value per (seed, target)."""
    found: dict[tuple[Any, str], list[float]] = {}
    for row in rows:
        for group, value in zip(row["groups"], row["values"], strict=True):
            found.setdefault((row["seed"], group), []).append(value)
    return {key: sum(values) / len(values) for key, values in found.items()}


def _reasons(rows: Sequence[Row]) -> str:
    """Why there is no answer; with the seeds, where it holds for some only."""
    by: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            by.setdefault(str(row["reason"]) or str(row["status"]), []).append(str(row["seed"]))
    if [len(rows)] == [len(seeds) for seeds in by.values()]:
        return next(iter(by))
    return "; ".join(f"seed {', '.join(seeds)}: {reason}" for reason, seeds in by.items())
