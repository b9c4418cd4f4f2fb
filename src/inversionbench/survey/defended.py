"""The table of defenses: what each strength leaves to each attack, and what it costs.

One row per scenario, defense, strength, attacker, access level and metric. Entries of one method at one level,
and methods that adapt it (`collect.attacker`), are one attacker; where some of them know the defense, the row
shows both and its headline is the worse one. The rows with attack "strongest" hold the worst attack of each
level, and are what a defense is judged by. A defense that cannot act on an attack is run once; its row shows
the undefended numbers, at every strength, if the check that they are equal has passed. Undefended is also what an
attacker makes of undefended answers by a post-processing of his own (`verdicts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from inversionbench.core import catalogue
from inversionbench.survey import price, verdicts, words
from inversionbench.survey.checks import Check
from inversionbench.survey.pool import Difference, Pooled, Row, difference, pool

STRONGEST = "strongest"
PLACE = ("track", "scenario", "dataset", "model")
SIDES = [f"{side}_{name}" for side in ("naive", "aware") for name in ("mean", "low", "high", "n", "status")]
COLUMNS = [
    *PLACE, "defense", "strength", "attack", "method", "level", "kind", "entry", "metric", "direction", "headline",
    "worse", "mean", "low", "high", "median", "n", "units", "seeds", "status", "reason", *SIDES,
    "undefended", "reference", "difference", "difference_low", "difference_high", "pairs", "inert", "verdict", "alarm",
    *price.COLUMNS, "utility_chance", "robust_accuracy", "guarantee", "rebuilt", "records", "record_seeds",
]  # fmt: skip
ORDER = ["track", "scenario", "defense", "strength", "metric", "attack", "level"]
Choice = tuple[Pooled, Sequence[Row]]  # what was reached, and the rows it was pooled from
NOTHING: Choice = (Pooled(), ())


def defenses(
    frame: pd.DataFrame, checks: list[Check], prices: Mapping[price.Setting, Mapping[str, Any]]
) -> pd.DataFrame:
    """The table; `checks` are those of `checks.verify`, `prices` those of `price.measured`."""
    frame = frame.assign(verdict=frame["key"].map({c.key: c.verdict for c in checks}).fillna(""))
    rows = frame.to_dict("records")
    out: list[dict[str, Any]] = []
    for (scenario, _), part in _groups(rows, lambda r: (r["scenario"], r["metric"])):
        plain = [r for r in part if r["defense"] == "none"]
        free = plain + [r for r in part if verdicts.post_processing(r["defense"]) and not r["inert"]]
        made: list[dict[str, Any]] = []
        for defense, own in _groups((r for r in part if r["defense"] != "none"), lambda r: r["defense"]):
            for strength in sorted({r["strength"] for r in own}):
                lines = list(_attackers(own, strength, free))
                known = {"defense": defense, "strength": strength, "rebuilt": catalogue.rebuilt("defense", defense)}
                common = {**known, **prices[scenario, defense, strength], "guarantee": _stated(own, strength),
                          "utility_chance": _chance(own, strength), "robust_accuracy": _robust(own, strength),
                          "acted": verdicts.acted(defense, [r for r in own if r["strength"] == strength], plain)}
                made += [{**common, **line} for line in (*lines, *_strongest(lines))]  # COLUMNS drops the rows
        verdicts.judge(made, free, STRONGEST)
        out += made
    return pd.DataFrame(out, columns=COLUMNS).sort_values(ORDER, ignore_index=True)


def _groups(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    """Rows by key, in the order of the keys."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return sorted(found.items())


def _stated(rows: Sequence[Row], strength: float) -> str:
    """What the defense states at this strength; "" where nothing, or where its cells have no answer."""
    return next((r["guarantee"] for r in rows if r["strength"] == strength and r["guarantee"]), "")


def _chance(rows: Sequence[Row], strength: float) -> float:
    """What always saying the most frequent class would reach, where the targets' utility says it."""
    return max((r.get("utility_chance", math.nan) for r in rows if r["strength"] == strength), default=math.nan)


def _robust(rows: Sequence[Row], strength: float) -> float:
    """Robust accuracy of the targets at one strength, their mean; NaN where no target's utility holds it."""
    own = {r["target"]: r.get("utility_robust_accuracy", math.nan) for r in rows if r["strength"] == strength}
    return sum(own.values()) / len(own) if own else math.nan


def _attackers(rows: Sequence[Row], strength: float, plain: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """One line per attacker and level, at one strength of one defense, in one metric."""
    for (method, level), group in _groups(rows, lambda r: (r["attacker"], r["level"])):
        here = [r for r in group if r["strength"] == strength]
        same = [r for r in plain if (r["attacker"], r["level"]) == (method, level)]
        checked = {r["verdict"] for r in group}
        verdict = next((v for v in ("differs", "unchecked", "inert") if v in checked), "")
        if not here and verdict != "inert":
            continue
        shown = here or group
        unprocessed = [r for r in same if r["defense"] == "none"]
        line = _unchanged(unprocessed) if verdict == "inert" else _changed(here, same)
        yield {
            **{c: shown[0][c] for c in (*PLACE, "kind", "metric", "direction", "headline")},
            "attack": method, "method": method, "level": level, "inert": verdict, "verdict": "", "alarm": False,
            "own": verdicts.post_processing(shown[0]["defense"]),
            "plain": _worst(unprocessed, shown[0]["direction"])[1],
            **line, **_origin(shown, line["entry"]),
        }


def _changed(here: Sequence[Row], same: Sequence[Row]) -> dict[str, Any]:
    """The worse of the attackers that ignore and that know the defense, against no defense."""
    direction = here[0]["direction"]
    naive = _worst([r for r in here if not r["aware"]], direction)
    aware = _worst([r for r in here if r["aware"]], direction)
    worse, (chosen, rows) = _worse(naive, aware, direction)
    undefended, reference = _worst(same, direction)
    change = difference(rows, reference)
    return {
        "entry": rows[0]["attack"], "worse": worse, **_numbers("", chosen),
        **_numbers("naive_", naive[0]), **_numbers("aware_", aware[0]),
        "undefended": undefended.mean, "difference": change.mean, "difference_low": change.low,
        "difference_high": change.high, "pairs": change.pairs, "rows": rows, "reference_rows": reference,
        "reference": _place(reference), "references": 1 + len({_place([r]) for r in same if r["defense"] != "none"}),
    }


def _unchanged(same: Sequence[Row]) -> dict[str, Any]:
    """A defense that cannot act: the undefended numbers, and no difference."""
    undefended, rows = _worst(same, same[0]["direction"])
    zero = Difference() if math.isnan(undefended.mean) else Difference(0.0, 0.0, 0.0, undefended.n)
    return {
        "entry": rows[0]["attack"], "worse": "", **_numbers("", undefended),
        "naive_status": "inert", "aware_status": "inert", "undefended": undefended.mean,
        "difference": zero.mean, "difference_low": zero.low, "difference_high": zero.high, "pairs": zero.pairs,
        "rows": rows, "reference_rows": rows, "reference": _place(rows), "references": 1,
    }


def _worst(rows: Sequence[Row], direction: str) -> Choice:
    """Of several entries of one method, and post-processings, the one that leaks most; with its rows."""
    best = NOTHING
    for _, part in _groups(rows, lambda r: (r["attack"], r["defense"], r["strength"])):
        choice: Choice = (pool(part), part)
        if not best[1] or math.isnan(best[0].mean) or words.better(choice[0].mean, best[0].mean, direction):
            best = choice
    return best


def _worse(naive: Choice, aware: Choice, direction: str) -> tuple[str, Choice]:
    """Which of the two leaks more; one that has no number loses to one that has."""
    if not aware[1]:
        return "naive", naive
    if not naive[1]:
        return "aware", aware
    blind, seeing = naive[0].mean, aware[0].mean
    wins = words.better(seeing, blind, direction) or (math.isnan(blind) and not math.isnan(seeing))
    return ("aware", aware) if wins else ("naive", naive)


def _strongest(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Per level, the line of the attack that leaks most; controls are no attacks.

    It is compared, over the same seeds and targets, with the attack that leaks most without defense, which
    may be another one.
    """
    for level in sorted({line["level"] for line in lines}):
        real = [n for n in lines if n["level"] == level and n["kind"] == "attack" and not math.isnan(n["mean"])]
        if not real or not real[0]["direction"]:
            continue
        sign = 1 if real[0]["direction"] == "higher" else -1
        worst = max(real, key=lambda line: sign * line["mean"])
        before = max(real, key=lambda line: -math.inf if math.isnan(line["undefended"]) else sign * line["undefended"])
        line = {**worst, "attack": STRONGEST,
                **{name: before[name] for name in ("undefended", "reference", "reference_rows", "references")}}
        if before is not worst:
            change = difference(worst["rows"], before["reference_rows"])
            line |= {"difference": change.mean, "difference_low": change.low, "difference_high": change.high,
                     "pairs": change.pairs}
        yield line


def _place(rows: Sequence[Row]) -> str:
    """Whose the undefended number is: entry, post-processing and strength; "" where there is none."""
    return f"{rows[0]['attack']}/{rows[0]['defense']}/{rows[0]['strength']:g}" if rows else ""


def _numbers(prefix: str, entry: Pooled) -> dict[str, Any]:
    names = ("mean", "low", "high", "n", "status") if prefix else (
        "mean", "low", "high", "median", "n", "units", "seeds", "status", "reason")
    return {f"{prefix}{name}": getattr(entry, name) for name in names}


def _origin(shown: Sequence[Row], entry: str) -> dict[str, str]:
    """Where the records of a line are."""
    own = [r for r in shown if r["attack"] == entry] or shown
    parts = own[0]["record"].split("/")
    return {"records": "/".join([*parts[:4], "*", parts[5]]),
            "record_seeds": " ".join(str(seed) for seed in sorted({r["seed"] for r in own}))}

