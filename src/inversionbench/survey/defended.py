"""The table of defenses: what each strength leaves to each attack, and what it costs.

One row per scenario, defense, strength, attack method, access level and metric. Entries of one method at one
level are one attacker; where some of them know the defense, the row shows both and its headline is the worse
one. The rows with attack "strongest" hold the worst attack of each level, and are what a defense is judged
by. A defense that cannot act on an attack is run once; its row shows the undefended numbers, at every
strength, if the check that they are equal has passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from inversionbench.survey import words
from inversionbench.survey.checks import Check
from inversionbench.survey.pool import Difference, Pooled, difference, pool

STRONGEST = "strongest"
COLUMNS = """track scenario dataset model defense strength attack method level kind entry metric direction headline
    worse mean low high median n units seeds status reason
    naive_mean naive_low naive_high naive_n naive_status aware_mean aware_low aware_high aware_n aware_status
    undefended difference difference_low difference_high pairs inert
    utility_name utility utility_min utility_max targets utility_undefended utility_difference
    records record_seeds""".split()
ORDER = ["track", "scenario", "defense", "strength", "metric", "attack", "level"]
Choice = tuple[Pooled, pd.DataFrame | None]
NOTHING: Choice = (Pooled(), None)


def defenses(frame: pd.DataFrame, checks: list[Check]) -> pd.DataFrame:
    """The table; `checks` are those of `checks.verify`."""
    frame = frame.assign(verdict=frame["key"].map({c.key: c.verdict for c in checks}).fillna(""))
    utilities: dict[tuple[str, str, float], dict[str, Any]] = {}
    out: list[dict[str, Any]] = []
    for (scenario, _), part in frame.groupby(["scenario", "metric"], sort=True):
        plain, defended = part[part["defense"] == "none"], part[part["defense"] != "none"]
        for defense, rows in defended.groupby("defense", sort=True):
            for strength in sorted(rows["strength"].unique()):
                place = (scenario, defense, strength)
                if place not in utilities:
                    utilities[place] = _utility(frame, *place)
                lines = list(_attackers(rows, strength, plain))
                common = {"defense": defense, "strength": strength, **utilities[place]}
                out += [{**common, **line} for line in (*lines, *_strongest(lines))]
    return pd.DataFrame(out, columns=COLUMNS).sort_values(ORDER, ignore_index=True)


def _attackers(rows: pd.DataFrame, strength: float, plain: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One line per attack method and level, at one strength of one defense, in one metric."""
    for (method, level), group in rows.groupby(["method", "level"], sort=True):
        here = group[group["strength"] == strength]
        same = plain[(plain["method"] == method) & (plain["level"] == level)]
        verdict = _verdict(group["verdict"])
        if here.empty and verdict != "inert":
            continue
        shown = here if len(here) else group
        first = shown.iloc[0]
        line = _unchanged(same) if verdict == "inert" else _changed(here, same)
        yield {
            **{c: first[c] for c in ("track", "scenario", "dataset", "model", "kind", "metric", "direction")},
            "attack": method, "method": method, "level": level, "headline": bool(first["headline"]),
            "inert": verdict, **line, **_origin(shown, line["entry"]),
        }


def _changed(here: pd.DataFrame, same: pd.DataFrame) -> dict[str, Any]:
    """The worse of the attackers that ignore and that know the defense, against no defense."""
    direction = here.iloc[0]["direction"]
    naive, aware = _worst(here[~here["aware"]], direction), _worst(here[here["aware"]], direction)
    worse, (chosen, rows) = _worse(naive, aware, direction)
    undefended, reference = _worst(same, direction)
    change = Difference() if rows is None or reference is None else difference(rows, reference)
    return {
        "entry": "" if rows is None else rows.iloc[0]["attack"], "worse": worse, **_numbers("", chosen),
        **_numbers("naive_", naive[0]), **_numbers("aware_", aware[0]),
        "undefended": undefended.mean, "difference": change.mean, "difference_low": change.low,
        "difference_high": change.high, "pairs": change.pairs,
    }


def _unchanged(same: pd.DataFrame) -> dict[str, Any]:
    """A defense that cannot act: the undefended numbers, and no difference."""
    undefended, rows = _worst(same, same.iloc[0]["direction"])
    zero = math.nan if math.isnan(undefended.mean) else 0.0
    return {
        "entry": "" if rows is None else rows.iloc[0]["attack"], "worse": "", **_numbers("", undefended),
        "naive_status": "inert", "aware_status": "inert", "undefended": undefended.mean,
        "difference": zero, "difference_low": zero, "difference_high": zero, "pairs": undefended.n,
    }


def _worst(rows: pd.DataFrame, direction: str) -> Choice:
    """Of several entries of one method, the one that leaks most; with its rows."""
    best = NOTHING
    for _, part in rows.groupby("attack", sort=True):
        choice: Choice = (pool(part), part)
        if best[1] is None or math.isnan(best[0].mean) or words.better(choice[0].mean, best[0].mean, direction):
            best = choice
    return best


def _worse(naive: Choice, aware: Choice, direction: str) -> tuple[str, Choice]:
    """Which of the two leaks more; one that has no number loses to one that has."""
    if aware[1] is None:
        return "naive", naive
    if naive[1] is None:
        return "aware", aware
    blind, seeing = naive[0].mean, aware[0].mean
    wins = words.better(seeing, blind, direction) or (math.isnan(blind) and not math.isnan(seeing))
    return ("aware", aware) if wins else ("naive", naive)


def _strongest(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Per level, the line of the attack that leaks most; controls are no attacks.

    It is compared with the attack that leaks most without defense. Where that is another one, the difference
    is of two means over different attacks and has no interval.
    """
    for level in sorted({line["level"] for line in lines}):
        real = [n for n in lines if n["level"] == level and n["kind"] == "attack" and not math.isnan(n["mean"])]
        if not real or not real[0]["direction"]:
            continue
        sign = 1 if real[0]["direction"] == "higher" else -1
        worst = max(real, key=lambda line: sign * line["mean"])
        before = [line["undefended"] for line in real if not math.isnan(line["undefended"])]
        undefended = max(before, key=lambda v: sign * v) if before else math.nan
        line = {**worst, "attack": STRONGEST, "undefended": undefended}
        if undefended != worst["undefended"]:
            line |= {"difference": worst["mean"] - undefended, "difference_low": math.nan,
                     "difference_high": math.nan, "pairs": 0}
        yield line


def _verdict(verdicts: pd.Series) -> str:
    """The worst verdict of several checks; empty where the defense can act."""
    return next((v for v in ("differs", "unchecked", "inert") if (verdicts == v).any()), "")


def _numbers(prefix: str, entry: Pooled) -> dict[str, Any]:
    names = ("mean", "low", "high", "n", "status") if prefix else (
        "mean", "low", "high", "median", "n", "units", "seeds", "status", "reason")
    return {f"{prefix}{name}": getattr(entry, name) for name in names}


def _origin(shown: pd.DataFrame, entry: str) -> dict[str, str]:
    """Where the records of a line are."""
    own = shown[shown["attack"] == entry]
    if own.empty:
        own = shown
    parts = own.iloc[0]["record"].split("/")
    return {"records": "/".join([*parts[:4], "*", parts[5]]),
            "record_seeds": " ".join(str(seed) for seed in sorted(set(own["seed"])))}


def _utility(frame: pd.DataFrame, scenario: str, defense: str, strength: float) -> Mapping[str, Any]:
    """Mean, smallest and largest utility over the targets, and the difference to the undefended targets."""
    part = frame[frame["scenario"] == scenario].sort_values("inert", kind="stable")
    name = words.track(part.iloc[0]["track"]).utility
    column = f"utility_{name}"
    if column not in part:
        return {"utility_name": name, "utility": math.nan}
    here = part[(part["defense"] == defense) & (part["strength"] == strength)]
    own, plain = (p.dropna(subset=[column]).drop_duplicates("target")[column]
                  for p in (here, part[part["defense"] == "none"]))
    return {"utility_name": name, "utility": own.mean(), "utility_min": own.min(), "utility_max": own.max(),
            "targets": len(own), "utility_undefended": plain.mean(),
            "utility_difference": own.mean() - plain.mean()}
