"""Records: the JSON that a cell leaves behind. Tables, figures and MLflow are made from these alone.

A cell's folder holds `record.json`, which depends on parameters, seed, code and data only, so that two runs
give equal bytes, and pictures. What a clock measured (seconds, peak memory, device, threads) lies apart,
under `timings/` in the place of `cells/`, or two runs could not have equal folders; `load` joins the two.

record.json
    key          "scenario/attack/defense/strength/seed": stable, unique, and the folder below `cells/`
    track, scenario, dataset, model, attack, method, level, defense, strength, seed, scale
    kind         "attack", or "control" for a row that says what a number means
    status       "ok" | "denied" | "budget" | "unavailable" | "failed"; `reason` where it is not ok
    inert        True where the defense structurally cannot act on this attack (run once, must equal strength 0)
    metrics      name -> {"values": [...], "mean", "median", "low", "high", "n"}: 95 % interval over subjects,
                 null where there are fewer than two
    groups       [...] the subject (client, class, record) of each value
    unavailable  metric -> reason
    controls     control -> metric -> mean over subjects (mean image, random image, noise, truth, ...)
    curves       metric -> [[budget, mean], ...]
    utility      name -> number, of the defended target (accuracy, nll, ece, bytes, ...)
    cost         {"queries", "queries_by_phase", "passes", "gradient_evaluations", ...}: counted
    knowledge    what the attack used: {"used": [...], protocol and scenario facts}
    parameters   {"attack", "priors", "defense", "scenario", ...}: every parameter, defaults included
    facts        what else the evaluation found out
    provenance   {"code", "data", "target", "prior", "evaluator": digests, "versions": {...}, "device",
                 "numerics": "portable" | "native", "processor" where native}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from inversionbench.files import read_json, visible, write_json

SCHEMA = 1
REQUIRED = [
    "key",
    "track",
    "scenario",
    "dataset",
    "model",
    "attack",
    "method",
    "level",
    "defense",
    "strength",
    "seed",
    "scale",
    "kind",
    "status",
    "metrics",
    "groups",
    "unavailable",
    "controls",
    "curves",
    "utility",
    "cost",
    "knowledge",
    "parameters",
    "facts",
    "provenance",
    "inert",
]
KINDS = ("attack", "control")
PARTS = ("values", "mean", "median", "low", "high", "n")  # of a metric
STATUS = ("ok", "denied", "budget", "unavailable", "failed")


def check(record: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a record is not what its schema says."""
    missing = [name for name in REQUIRED if name not in record]
    if missing:
        raise ValueError(f"record {record.get('key')}: missing {', '.join(missing)}")
    if record["status"] not in STATUS:
        raise ValueError(f"record {record['key']}: status '{record['status']}' is none of {', '.join(STATUS)}")
    if record["status"] != "ok" and not record.get("reason"):
        raise ValueError(f"record {record['key']}: status '{record['status']}' without a reason")
    if record["kind"] not in KINDS:
        raise ValueError(f"record {record['key']}: kind '{record['kind']}' is none of {', '.join(KINDS)}")
    for name, metric in record["metrics"].items():
        absent = [part for part in PARTS if part not in metric]
        if absent:
            raise ValueError(f"record {record['key']}: {name} without {', '.join(absent)}")
        if name in record["unavailable"]:
            raise ValueError(f"record {record['key']}: {name} has values and is unavailable")
        if len(metric["values"]) != len(record["groups"]):
            raise ValueError(
                f"record {record['key']}: {name} has {len(metric['values'])} values for "
                f"{len(record['groups'])} subjects"
            )


def timing_path(folder: Path) -> Path:
    """Where the timing of a cell lies: `timings/<key>.json` beside `cells/<key>/`."""
    parts = list(folder.parts)
    if "cells" not in parts:
        return folder / "timing.json"
    at = len(parts) - 1 - parts[::-1].index("cells")
    return Path(*parts[:at], "timings", *parts[at + 1 :]).with_name(folder.name + ".json")


def write(folder: Path, record: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> None:
    """Write a record that satisfies its schema, and the timing where there is one."""
    check(record)
    if timing is not None:
        write_json(timing_path(folder), timing)
    write_json(folder / "record.json", {"schema": SCHEMA, **record})


def digest(record: Mapping[str, Any]) -> str:
    """sha256 of a record without its timing."""
    plain = {k: v for k, v in record.items() if k not in ("timing", "folder")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def content(record: Mapping[str, Any]) -> str:
    """sha256 of what a record says, equal where two runs are: without clocks, without what names code, versions and
    machine, and without reasons of what is unavailable, which name folders."""
    left_out = ("timing", "folder", "provenance", "schema", *(["reason"] if record["status"] == "unavailable" else []))
    plain = {k: v for k, v in record.items() if k not in left_out} | {"unavailable": sorted(record["unavailable"])}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def load(folders: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Records with `timing` (empty where a run was restored without it) and `folder` joined to them."""
    for folder in folders:
        record, path = read_json(folder / "record.json"), timing_path(folder)
        timing = read_json(path) if path.is_file() else {}
        yield {**record, "timing": timing, "folder": str(folder)}


def find(root: Path) -> list[Path]:
    """All cell folders below `root`, sorted."""
    return [path.parent for path in visible(root, "record.json")]
