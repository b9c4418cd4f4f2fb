"""Pooling cells over seeds: mean, median and 95 % interval, and differences with an interval.

The unit of an interval is the attacked target (client batch, class, record): values of one target from several
seeds, restarts or reconstructions stay together. Where there is one target only, the unit is the seed. Fewer than
three units have no interval. Shares and their changes have the intervals of hits (`metrics._aggregate`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inversionbench.metrics._aggregate import LEVEL, changed_hits, interval
from inversionbench.survey import words

NAN = math.nan
Row = Mapping[str, Any]  # one row of the tidy frame: `frame.to_dict("records")` is much faster than the frame


@dataclass(frozen=True)
class Pooled:
    """One entry of a table. n: values; units: targets (or seeds) of the interval; seeds: cells with an answer.

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


def pool(rows: Sequence[Row], level: float = LEVEL) -> Pooled:
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
    low, high = interval(values, units, level=level, share=_share(answered))
    whole = len(answered) == len(rows) and not reason
    return Pooled(float(values.mean()), low, high, float(np.median(values)), len(values), len(set(units)),
                  len(answered), "ok" if whole else "partial", reason)


@dataclass(frozen=True)
class Difference:
    """One side minus the other; pairs: values that both have for one seed and target; units: as in `Pooled`;
    targets: attacked models, of the side with fewer."""

    mean: float = NAN
    low: float = NAN
    high: float = NAN
    pairs: int = 0
    units: int = 0
    targets: int = 0

    def sign(self) -> int:
        """-1 or 1 where the interval lies on one side of 0, else 0 (also without an interval)."""
        return int(self.low > 0) - int(self.high < 0)


def difference(one: Sequence[Row], other: Sequence[Row], level: float = LEVEL) -> Difference:
    """Mean difference over the (seed, target) pairs that both sides have, with its interval.

    Seed and target fix the attacked sample, so the difference is paired; an unpaired difference is given
    without interval, because the two sides then saw different samples.
    """
    a, b = _by_subject(one), _by_subject(other)
    if not a or not b:
        return Difference()
    common = sorted(a.keys() & b.keys())
    if not common:
        return Difference(float(np.mean(list(a.values())) - np.mean(list(b.values()))))
    paired, units = np.array([a[key] - b[key] for key in common]), _units(common)
    if _share(one) and np.isin(paired, (-1, 0, 1)).all():
        low, high = changed_hits(paired, units, level)
    else:
        low, high = interval(paired, units, level=level)
    seeds = {seed for seed, _ in common}
    targets = min(len({r.get("target", r["seed"]) for r in side if r["seed"] in seeds}) for side in (one, other))
    return Difference(float(paired.mean()), low, high, len(paired), len(set(units)), targets)


def _share(rows: Sequence[Row]) -> bool:
    """Whether the values are shares of targets; with one target only, seeds are no sample of targets."""
    targets = {group for row in rows for group in row["groups"]}
    return len(targets) > 1 and words.metric(rows[0].get("metric", "")).unit == "%"


def _units(places: Sequence[tuple[Any, str]]) -> list[str]:
    """The unit of an interval: the target of each (seed, target), or the seed where there is one target only."""
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
