"""Are the records of two runs the same? `records.json` of a published run holds a digest of each record.

A digest leaves out what names code, versions and machine (`provenance`) and what a clock measured: two runs whose
digests are equal show the same tables. Beside it stands the mean of the headline metric, by which a difference is said.

    {"scale", "seed", "numerics": [...], "versions": {...}, "cells": {key: [digest, metric, mean or null]}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inversionbench.core import records
from inversionbench.core.errors import UserError
from inversionbench.core.files import read_json
from inversionbench.plan import cells, params
from inversionbench.survey import collect, words

FILE = "records.json"
MANY = 20  # differing cells that are named one by one


def summary(given: params.Params, found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What `records.json` holds, of the records of a run."""
    found = sorted(found, key=lambda record: record["key"])
    present = collect.metrics_by_scenario(found)
    entries = {}
    for record in found:
        metric = words.headline(record["track"], present[record["scenario"]])
        mean = record["metrics"].get(metric, {}).get("mean")
        entries[record["key"]] = [records.content(record)[:16], metric, mean if mean is None else float(f"{mean:.10g}")]
    made = [record["provenance"] for record in found]
    return {
        "scale": given.scale,
        "seed": given.seed,
        "numerics": sorted({" ".join(filter(None, (p.get("numerics", "native"), p.get("processor")))) for p in made}),
        "versions": {name: version for p in made for name, version in p.get("versions", {}).items()},
        "cells": entries,
    }


def run_of(published: Path) -> Path:
    """The run that a published folder is compared with: that of its scale, below `results/`."""
    return Path("results") / read(published)["scale"]


def read(folder: Path) -> dict[str, Any]:
    """The summary of a published folder, or of a run's own folder."""
    if (folder / FILE).is_file():
        return read_json(folder / FILE)
    if not (folder / "cells").is_dir():
        raise UserError(f"{folder} holds neither {FILE} nor cells: give results/published/SCALE or the folder of a run")
    given = params.read(folder / "params.json")
    planned = cells.planned(given)
    return summary(given, [record for record in collect.read(folder / "cells") if record["key"] in planned])


def compare(first: Path, second: Path) -> tuple[list[str], bool]:
    """Lines for people, and whether every cell of the first has an equal record in the second, which may hold more."""
    a, b = read(first), read(second)
    mine, theirs = a["cells"], b["cells"]
    both = [key for key in mine if key in theirs]
    differ = [key for key in both if mine[key][0] != theirs[key][0]]
    missing, extra = ([key for key in one if key not in other] for one, other in ((mine, theirs), (theirs, mine)))
    if not (differ or missing):
        more = [f"only in {second}: {len(extra)} cells"] if extra else []
        return [f"equal: {len(both)} cells of {first} and {second}", *more], True
    lines = [f"{len(both) - len(differ)} of {len(mine)} cells of {first} are equal in {second}"]
    for name in ("scale", "seed", "numerics", "versions"):
        if a[name] != b[name]:
            lines.append(f"{name}: {_said(a[name], b[name])} against {_said(b[name], a[name])}")
    for what, keys in ((f"not in {second}", missing), (f"only in {second}", extra)):
        if keys:
            lines += [f"{what}: {len(keys)} cells", *(f"  {key}" for key in keys[:MANY]), *_more(keys)]
    if differ:
        differ.sort(key=lambda key: -abs(_shift(mine[key], theirs[key]) or 0.0))
        lines.append(f"different: {len(differ)} cells, the largest difference first")
        lines += [f"  {key}: {_difference(mine[key], theirs[key])}" for key in differ[:MANY]]
        lines += _more(differ)
    return lines, False


def _more(keys: list[str]) -> list[str]:
    return [f"  and {len(keys) - MANY} more"] if len(keys) > MANY else []


def _said(value: Any, other: Any) -> str:
    """A value of the header; of versions those that differ."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in sorted(value.items()) if other.get(k) != v) or "none"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _shift(a: list[Any], b: list[Any]) -> float | None:
    """How far apart two headline means are, in units of what is shown; None where one has none."""
    if a[1] != b[1] or a[2] is None or b[2] is None:
        return None
    return float(b[2] - a[2]) * words.metric(a[1]).factor


def _difference(a: list[Any], b: list[Any]) -> str:
    shift = _shift(a, b)
    if shift is None:
        return "one of them has no " + a[1] if (a[2] is None) != (b[2] is None) else "beside the headline metric"
    known = words.metric(a[1])
    if shift == 0:
        return f"{a[1]} equal, the rest of the record is not"
    unit = f" {known.unit}" if known.unit else ""
    return f"{a[1]} {a[2] * known.factor:.6g} against {b[2] * known.factor:.6g} ({shift:+.3g}{unit})"
