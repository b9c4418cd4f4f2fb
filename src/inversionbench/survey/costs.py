"""What a run cost: counted work, seconds and memory of every attack, and of the training before it.

Written to `timings/`, beside the survey and never into it, because clocks differ from run to run:

    costs.csv            one row per cell            costs_attacks.csv   one row per attack, without defense
    costs_training.csv   targets, evaluators, priors costs.html          the last two for reading
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from inversionbench.core.files import read_json, visible, write_text
from inversionbench.plan import cells
from inversionbench.survey import report, tables, words
from inversionbench.survey.view import Cell, Table

if TYPE_CHECKING:
    from inversionbench.plan.params import Params

COUNTS = ("queries", "passes", "gradient_evaluations", "prior_passes", "prior_queries")
MEASURED = ("seconds", "cpu_seconds", "peak_memory_mib", "threads")
KINDS = ("targets", "prices", "evaluators", "priors")  # what is trained, as folders of `timings/`
Record = Mapping[str, Any]


def write(params: Params, found: list[dict[str, Any]]) -> None:
    """All files of a run's records."""
    folder = params.folder / "timings"
    made = by_attack(params, found), training(folder)
    tables.write(folder / "costs.csv", by_cell(found))
    tables.write(folder / "costs_attacks.csv", made[0])
    tables.write(folder / "costs_training.csv", made[1])
    page = report.costs(params.scale, [_shown("Attacks without defense", ATTACK_HEAD, made[0]),
                                       _shown("Training", TRAINING_HEAD, made[1])])
    write_text(folder / "costs.html", page)


def by_cell(found: Iterable[Record]) -> pd.DataFrame:
    """One row per cell: seconds (wall and processor), peak memory and where it ran; and what was counted."""
    return pd.DataFrame([{
        "key": record["key"], "status": record["status"],
        **{name: record["timing"].get(name) for name in MEASURED}, "device": record["provenance"].get("device"),
        **{name: record["cost"].get(name) for name in COUNTS},
        "queries_by_phase": " ".join(f"{k}={v}" for k, v in sorted(record["cost"].get("queries_by_phase", {}).items())),
    } for record in found])  # fmt: skip


def by_attack(params: Params, found: Iterable[Record]) -> pd.DataFrame:
    """One row per attack and scenario, over its undefended cells.

    Counts are means per cell, cpu_seconds the median per cell (the first cell of a process also pays for
    loading), peak_memory_mib the largest. prior_seconds: processor time of training all priors of one cell.
    single: a cell that trains them for itself; amortised: its share, if every cell of the run that uses a
    prior bears an equal part.
    """
    found = list(found)
    needed = {record["key"]: list(_priors(params, record)) for record in found}
    users = Counter(prior for priors in needed.values() for prior in priors)
    seconds = {prior: _cpu(params.folder / "timings" / f"{prior}.json") for prior in users}
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in found:
        if record["defense"] == "none" and record["status"] == "ok":
            groups.setdefault((record["scenario"], record["attack"]), []).append(record)
    rows = []
    for (scenario, attack), group in sorted(groups.items()):
        frame = by_cell(group)
        priors = needed[group[0]["key"]]
        own, whole = frame["cpu_seconds"].median(), sum(seconds[p] for p in priors)
        rows.append({
            "scenario": scenario, "attack": attack, "level": group[0]["level"], "cells": len(group),
            "subjects": len(set(group[0]["groups"])),
            **{name: pd.to_numeric(frame[name]).mean() for name in COUNTS},
            "cpu_seconds": own, "peak_memory_mib": frame["peak_memory_mib"].max(), "device": frame["device"].iloc[0],
            "priors": " ".join(Path(p).parent.name if "/targets/" in p else Path(p).name for p in priors),
            "prior_seconds": whole, "single": own + whole,
            "amortised": own + sum(seconds[p] / users[p] for p in priors),
        })  # fmt: skip
    return pd.DataFrame(rows)


def training(timings: Path) -> pd.DataFrame:
    """One row per target (over its seeds), price of a defense (all its trainings), evaluator and prior: processor
    seconds, memory, and what a target's training says of its clients (`seconds_*`)."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for kind in KINDS:
        for path in visible(timings / kind, "*.json"):
            parts = path.relative_to(timings / kind).parts
            seeded = kind == "targets" or parts[0] == "targets"  # the file is named by a seed
            what = "/".join(parts[:-1] if seeded else (*parts[:-1], path.stem))
            groups.setdefault((kind[:-1], what), []).append(read_json(path, path))
    rows = []
    for (kind, what), timed in groups.items():
        frame = pd.DataFrame(timed)
        rows.append({
            "kind": kind, "what": what, "trained": len(frame), "cpu_seconds": frame["cpu_seconds"].mean(),
            "peak_memory_mib": frame["peak_memory_mib"].max(),
            **{f"seconds_{name}": frame[name].mean() for name in frame if name not in MEASURED},
        })  # fmt: skip
    return pd.DataFrame(rows)


def _priors(params: Params, record: Record) -> Iterator[str]:
    """Where the timings of the priors of a cell lie, below `timings/` and without ending; those that another starts
    from included."""
    for entry in params.attacks[record["attack"]].priors(record["scenario"]):
        described = params.priors[entry].described.attributes
        place = record["scenario"], record["defense"], record["strength"]
        for prior in filter(None, (described.get("base"), entry)):
            folder = cells.prior_folder(params, prior, *place)
            aware = params.priors[prior].described.attributes.get("target_aware")
            yield f"{folder}/{record['target_seed']}" if aware else folder


def _cpu(path: Path) -> float:
    """Processor seconds of a training; NaN where a run was restored without its timings."""
    return read_json(path, path)["cpu_seconds"] if path.is_file() else float("nan")


ATTACK_HEAD = {
    "scenario": ("scenario", ""),
    "attack": ("attack", ""),
    "level": ("access", ""),
    "subjects": ("subjects", "per cell"),
    "queries": ("queries", "per cell"),
    "passes": ("passes", "through the target, per cell"),
    "gradient_evaluations": ("gradient evaluations", "per cell"),
    "prior_passes": ("passes of the prior", "through the target"),
    "prior_queries": ("queries of the prior", "to the target, for all classes"),
    "cpu_seconds": ("attack", "processor seconds"),
    "prior_seconds": ("its priors", "processor seconds of training"),
    "single": ("single", "attack and priors, processor seconds"),
    "amortised": ("amortised", "priors shared among the run's cells"),
    "peak_memory_mib": ("memory", "peak, MiB"),
}
TRAINING_HEAD = {
    "kind": ("kind", ""),
    "what": ("what", "scenario/defense/strength, entry or data set/prior"),
    "trained": ("trained", "times"),
    "cpu_seconds": ("training", "processor seconds each"),
    "seconds_client": ("client", "processor seconds per update"),
    "seconds_exchange": ("exchange", "processor seconds per round"),
    "peak_memory_mib": ("memory", "peak, MiB"),
}
WHOLE = (*COUNTS, "peak_memory_mib", "subjects", "trained")  # columns without decimals


def _shown(caption: str, head: Mapping[str, tuple[str, str]], frame: pd.DataFrame) -> Table:
    """The columns of `head` that hold anything."""
    kept = [name for name in head if name in frame and frame[name].replace(0, None).notna().any()]
    rows = [("", [_cell(name, value) for name, value in zip(kept, row)]) for row in frame[kept].itertuples(index=False)]
    return Table(caption, [head[name] for name in kept], rows)


def _cell(name: str, value: Any) -> Cell:
    if isinstance(value, str):
        return Cell({"level": words.label("levels", value), "attack": words.method("attack", value)}.get(name, value))
    if not value or value != value:  # nothing counted, nothing trained
        return Cell()
    digits = 0 if name in WHOLE else 2 if name.startswith("seconds_") else 1
    return Cell(f"{value:,.{digits}f}".replace(",", "\N{NO-BREAK SPACE}"), sort=float(value))
