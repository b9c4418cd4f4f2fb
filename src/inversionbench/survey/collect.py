"""Records of cells -> one tidy frame, one row per cell and metric; and beside it the curves.

Everything that is shown later is made from these frames. They hold nothing that was measured by a clock, so
two runs with the same parameters and seeds write the same bytes; seconds and memory are in `costs.py` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from inversionbench.core import records, registry
from inversionbench.core.errors import UserError
from inversionbench.core.files import atomic, whole
from inversionbench.core.levels import LEVELS
from inversionbench.survey import words

CELL = ("key", "track", "scenario", "dataset", "model", "attack", "method", "attacker", "kind", "level", "aware",
        "defense", "strength", "guarantee", "seed", "scale", "inert")
VALUE = ("status", "reason", "metric", "direction", "headline", "value", "low", "high", "median", "n", "values",
         "groups")
ORIGIN = ("record", "digest", "target")


def read(cells: Path | Iterable[Path]) -> list[dict[str, Any]]:
    """All records below one or several folders, by key. A record that cannot be read is a `UserError`."""
    roots = [Path(cells)] if isinstance(cells, (str, Path)) else [Path(c) for c in cells]
    found: dict[str, dict[str, Any]] = {}
    for root in roots:
        if not root.is_dir():
            raise UserError(f"no such folder of cells: {root}. Run the survey first, or give the right scale.")
        for folder in records.find(root):
            record = _load(folder)
            key = record["key"]
            if tuple(folder.parts[-5:]) != tuple(key.split("/")):
                raise UserError(f"{folder}: holds the record of '{key}'; a cell's folder ends with its key")
            if key in found and records.digest(found[key]) != records.digest(record):
                raise UserError(f"two different records of '{key}': {found[key]['folder']} and {folder}")
            found[key] = record
    return [found[key] for key in sorted(found)]


def collect(cells: Path | Iterable[Path]) -> pd.DataFrame:
    """The tidy frame of all records below `cells`: see `tidy`."""
    return tidy(read(cells))


def tidy(found: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per cell and metric.

    value, low, high, median, n: over the subjects of the cell (interval of the record itself); `values` and
    `groups` hold the subjects, for pooling over seeds. A metric that could not be computed has status
    "missing" with its reason; a cell that gave no answer has one row, of the headline metric, with its
    status. `utility_*`: of the target. `control_*`: mean of the row's metric over the control's subjects.
    `cost_*`: counted, never timed. `record`: path below the folder of cells. `aware`: the attack knows the
    defense, by what it read or by what it notes (`adaptive`). `guarantee`: what the defense states of itself, in
    words (epsilon and delta with neighbours and accountant, a security level), or nothing.
    """
    found = sorted(found, key=lambda record: record["key"])
    present = metrics_by_scenario(found)
    rows = [row for record in found for row in _rows(record, present[record["scenario"]])]
    frame = pd.DataFrame(rows)
    extra = sorted(c for c in frame.columns if c.split("_")[0] in ("utility", "control", "cost"))
    return frame.reindex(columns=[*CELL, *VALUE, *extra, *ORIGIN])


def metrics_by_scenario(found: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """The metrics of each scenario that some record of it has; where none has any, those that it should have."""
    present: dict[str, set[str]] = {}
    wanted: dict[str, set[str]] = {}
    for record in found:
        present.setdefault(record["scenario"], set()).update(record["metrics"])
        wanted.setdefault(record["scenario"], set()).update(record["unavailable"])
    return {scenario: names or wanted[scenario] for scenario, names in present.items()}


def curves(found: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per point: cell, metric, axis (what the budget counts), nth, budget, value (mean over subjects).

    The last point is the answer itself, at what the whole attack cost: a gradient attack keeps only what it had on
    the way, the others end their curves with it. nth: from 0 within a cell; seeds may pay different budgets for it.
    """
    rows = [
        {**{c: _cell(record)[c] for c in CELL}, "metric": metric, "axis": axis(record["level"]), "nth": nth,
         "budget": budget, "value": value}
        for record in found
        for metric, points in sorted(record["curves"].items())
        for nth, (budget, value) in enumerate([*points, *_final(record, metric)])
    ]
    return pd.DataFrame(rows, columns=[*CELL, "metric", "axis", "nth", "budget", "value"])


def _final(record: Mapping[str, Any], metric: str) -> list[tuple[float, float]]:
    """The answer of a gradient attack as a point of its curve, where that does not hold it."""
    spent = record["cost"].get("gradient_evaluations", 0)
    last = max((budget for budget, _ in record["curves"][metric]), default=0)
    known = record["level"].startswith("GR") and metric in record["metrics"] and spent > last
    return [(spent, record["metrics"][metric]["mean"])] if known else []


def axis(level: str) -> str:
    """What the budget of an attack at this level counts: answers asked for, or work done with a model at hand."""
    return LEVELS[level].axis if level in LEVELS else "queries"


def aware(record: Mapping[str, Any]) -> bool:
    """Whether the attack knows the defense: it read what is public of it, or notes that it adapts."""
    return "defense" in record["knowledge"].get("used", ()) or bool(record["facts"].get("adaptive"))


def attacker(method: str) -> str:
    """The attack that a method is a form of: itself, or what its class attribute `adapts` names.

    An attack rewritten against one defense and the attack it was written from count as one attacker, who
    ignores the defense or knows it.
    """
    known = registry.methods("attack").get(method)
    return str(known.attributes.get("adapts", method)) if known else method


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write `cells.parquet`, the same bytes for the same frame."""
    with atomic(path) as part:
        frame.to_parquet(part, index=False)


def _load(folder: Path) -> dict[str, Any]:
    record = next(records.load([folder]))
    with whole(folder / "record.json", records.made_in(folder)):
        records.check(record)
    return record


def _rows(record: Mapping[str, Any], present: set[str]) -> Iterator[dict[str, Any]]:
    cell, origin = _cell(record), _origin(record)
    names = sorted({*record["metrics"], *record["unavailable"]})
    main = words.headline(record["track"], present)
    if not names or (record["status"] != "ok" and main not in names):
        names = sorted({*names, main})
    for name in names:
        yield {**cell, **_value(record, name), "headline": name == main, **_controls(record, name), **origin}


def _cell(record: Mapping[str, Any]) -> dict[str, Any]:
    model = record["model"]
    known = {c: record[c] for c in CELL if c not in ("model", "aware", "attacker", "strength", "guarantee")}
    return {
        **known,
        "attacker": attacker(record["method"]),
        "model": model if isinstance(model, str) else str(model.get("name")),
        "aware": aware(record),
        "strength": float(record["strength"]),
        "guarantee": str(record["facts"].get("guarantee", "")),
    }


def _value(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    row = {"metric": name, "direction": words.metric(name, record["track"]).direction}
    if name in record["metrics"]:
        metric = record["metrics"][name]
        numbers = {k: metric.get(k) for k in ("low", "high", "median", "n")}
        return {**row, "status": record["status"], "reason": record.get("reason") or "", "value": metric["mean"],
                **numbers, "values": [float(v) for v in metric["values"]],
                "groups": [str(g) for g in record["groups"]]}
    empty = {**row, "n": 0, "values": [], "groups": []}
    if name in record["unavailable"]:
        return {**empty, "status": "missing", "reason": record["unavailable"][name]}
    return {**empty, "status": record["status"] if record["status"] != "ok" else "missing",
            "reason": record.get("reason") or "the record does not hold this metric"}


def _controls(record: Mapping[str, Any], name: str) -> dict[str, float]:
    return {f"control_{control}": values[name] for control, values in sorted(record["controls"].items())
            if name in values}


def _origin(record: Mapping[str, Any]) -> dict[str, Any]:
    cost = {f"cost_{k}": v for k, v in record["cost"].items() if isinstance(v, (int, float))}
    utility = {f"utility_{k}": v for k, v in record["utility"].items()}
    return {**utility, **cost, "record": f"{record['key']}/record.json", "digest": records.digest(record),
            "target": str(record["provenance"].get("target") or f"seed {record['seed']}")}
