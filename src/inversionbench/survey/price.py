"""The price of a defense: its utility and the difference to no defense, with intervals, and the rounds it takes.

A utility is measured on the same held-out samples in several trainings (federations or targets, see
`records`), so each value has two causes of chance: the training and the sample. `crossed` counts both. What a
number is for: other trainings of the same recipe, and other held-out samples of the same kind (of `photos`: other
crops of the same photographs, not other photographs). With one training the interval is over held-out samples alone.
Differences are paired: the same seed has the same clients, initial weights and batches, and each held-out
sample stands on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy import stats

from inversionbench.core.records import unpack
from inversionbench.metrics._aggregate import wilson
from inversionbench.survey import words

RELATIVE = 0.95  # of the undefended accuracy: where rounds are counted to
PLAIN = ("none", 0.0)
COLUMNS = (
    "utility_name", "utility", "utility_low", "utility_high", "utility_seeds", "utility_undefended",
    "utility_difference", "utility_difference_low", "utility_difference_high", "rounds_to_target",
    "rounds_undefended", "rounds_trained", "diverged",
)  # fmt: skip
Setting = tuple[str, str, float]  # scenario, defense, strength
Trial = Mapping[str, Any]


def measured(found: Iterable[Mapping[str, Any]]) -> dict[Setting, dict[str, Any]]:
    """`COLUMNS` of each (scenario, defense, strength), from the records.

    Records in which the defense cannot act hold the undefended utility, and count only where there is no other.
    rounds_to_target: median over the trainings of the first round with `RELATIVE` of what the undefended training of
    the same seed reaches in the end (or with `target_accuracy`); infinite where it is not reached in rounds_trained.
    """
    records: dict[Setting, list[Mapping[str, Any]]] = {}
    for record in found:
        records.setdefault((record["scenario"], record["defense"], float(record["strength"])), []).append(record)
    trials = {setting: _trials(part) for setting, part in records.items()}
    return {setting: _price(part, trials[setting], trials.get((setting[0], *PLAIN), {}))
            for setting, part in records.items()}


def crossed(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of values (trainings, samples) whose rows and columns are both drawn at random.

    The trainings' part is Student's t with one degree of freedom less than there are trainings: three with a
    standard deviation of 0.5 points leave +-1.2 points. The samples' part is added in square, less what the two
    have in common. One training: the samples' part alone; one sample: the trainings' alone; one of both: NaN.

    >>> low, high = crossed(np.array([[1.0, 0.0] * 50, [1.0, 0.0] * 50]))
    >>> round(low, 2), round(high, 2)
    (0.4, 0.6)
    """
    rows, columns = values.shape
    mean, tail = float(values.mean()), (1 + level) / 2
    if values.size < 2:
        return math.nan, math.nan
    by_row, by_column = values.mean(1), values.mean(0)
    of_rows = by_row.var(ddof=1) / rows if rows > 1 else 0.0
    of_columns = by_column.var(ddof=1) / columns if columns > 1 else 0.0
    if rows > 1 and columns > 1:
        rest = values - by_row[:, None] - by_column + mean
        of_columns -= float((rest**2).sum()) / ((rows - 1) * (columns - 1)) / values.size
    half = float(stats.t.ppf(tail, rows - 1)) ** 2 * of_rows if rows > 1 else 0.0
    half += float(stats.norm.ppf(tail)) ** 2 * max(0.0, of_columns)
    return mean - math.sqrt(half), mean + math.sqrt(half)


def rounds_to(trials: Mapping[int, Trial], plain: Mapping[int, Trial], target: float = 0.0) -> float:
    """Median over the seeds of both sides of the first round at `RELATIVE` of the undefended end, or at `target`."""
    counts = []
    for seed in sorted(trials.keys() & plain.keys()):
        if "curve" in trials[seed]:
            goal = target or RELATIVE * plain[seed]["curve"][-1][1]
            counts.append(min((t for t, value in trials[seed]["curve"] if value >= goal), default=math.inf))
    return float(np.median(counts)) if counts else math.nan


def _trials(records: list[Mapping[str, Any]]) -> dict[int, Trial]:
    """Seed -> trial. A record without any counts as one that says no more than its utility."""
    name = words.track(records[0]["track"]).utility
    out: dict[int, Trial] = {}
    for record in [r for r in records if not r["inert"]] or records:
        alone = [{"seed": record.get("target_seed", record["seed"]), "value": record["utility"].get(name)}]
        for trial in record.get("trials") or alone:
            if trial.get("value", 0.0) is not None:
                out.setdefault(trial["seed"], trial)
    return out


def _values(trials: Mapping[int, Trial], seeds: list[int]) -> np.ndarray:
    """(seeds, samples): 1 for a hit; one column where only the trainings' utilities are known."""
    known = all("hits" in trials[s] for s in seeds)
    return np.array([unpack(t).astype(float) if known else [_value(t)] for t in (trials[s] for s in seeds)])


def _value(trial: Trial) -> float:
    return float(unpack(trial).mean()) if "hits" in trial else float(trial["value"])


def _price(
    records: list[Mapping[str, Any]], own: Mapping[int, Trial], plain: Mapping[int, Trial]
) -> dict[str, Any]:
    name = words.track(records[0]["track"]).utility
    out: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan) | {"utility_name": name, "utility_seeds": len(own)}
    out["diverged"] = max((r["utility"].get("diverged", math.nan) for r in records), default=math.nan)
    if not own:
        return out
    values = _values(own, sorted(own))
    low, high = crossed(values)
    if values.shape[1] > 1 and (values == values[0, 0]).all():  # no width otherwise
        low, high = wilson(float(values[0].sum()), values.shape[1])
    low, high = np.clip([low, high], 0, 1)  # NaN stays
    out |= {"utility": values.mean(), "utility_low": low, "utility_high": high}
    if plain:
        out["utility_undefended"] = _values(plain, sorted(plain)).mean()
        out["utility_difference"] = out["utility"] - out["utility_undefended"]
    if common := sorted(own.keys() & plain.keys()):
        a, b = _values(own, common), _values(plain, common)
        change = a - b if a.shape == b.shape else a.mean(1, keepdims=True) - b.mean(1, keepdims=True)
        out["utility_difference"] = change.mean()
        out["utility_difference_low"], out["utility_difference_high"] = crossed(change)
    training = records[0]["parameters"]["scenario"].get("training", {})
    target = training.get("target_accuracy", 0.0)
    out["rounds_to_target"], out["rounds_undefended"] = (rounds_to(t, plain, target) for t in (own, plain))
    out["rounds_trained"] = max((t["curve"][-1][0] for t in own.values() if "curve" in t), default=math.nan)
    return out
