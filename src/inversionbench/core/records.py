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
                 null where there are fewer than three
    groups       [...] the subject (client, class, record) of each value
    unavailable  metric -> reason
    controls     control -> metric -> mean over subjects (mean image, random image, noise, truth, ...)
    curves       metric -> [[budget, mean], ...]
    utility      name -> number, of the defended target (accuracy, nll, ece, bytes, ...)
    trials       [{"seed", "samples", "hits", "curve"}, ...] one for each training that `utility` is a mean of (one
                 target where the target itself was tested): the held-out samples, on which of them it is right (see
                 `pack`), [[rounds, accuracy], ...]; equal seeds differ in the defense alone
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
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.files import read_json, visible, whole, write_json
from inversionbench.core.safe_yaml import NAME

SCHEMA = 1
TEXT = ("key", "track", "scenario", "dataset", "model", "attack", "method", "level", "defense", "scale", "kind",
        "status")  # fmt: skip
MAPPINGS = ("metrics", "unavailable", "controls", "curves", "utility", "cost", "knowledge", "parameters", "facts",
            "provenance")  # fmt: skip
REQUIRED: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(TEXT, (str,)), **dict.fromkeys(MAPPINGS, (Mapping,)),
    "strength": (int, float), "seed": (int,), "groups": (list,), "inert": (bool,),
}  # fmt: skip
KINDS = ("attack", "control")
PARTS = ("values", "mean", "median", "low", "high", "n")  # of a metric
STATUS = ("ok", "denied", "budget", "unavailable", "failed")
ROUNDED = 1e-6  # values are written with six digits after the point, their mean with all


def pack(hits: Any) -> dict[str, Any]:
    """Whether held-out samples are classified rightly, bool (n,), as {"samples": n, "hits": bits in hex}.

    >>> pack([True, False, True]), unpack(pack([True, False, True])).tolist()
    ({'samples': 3, 'hits': 'a0'}, [True, False, True])
    """
    right = np.asarray(hits, dtype=bool)
    return {"samples": len(right), "hits": np.packbits(right).tobytes().hex()}


def unpack(trial: Mapping[str, Any]) -> np.ndarray:
    """The samples of a trial, bool (n,)."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(trial["hits"]), np.uint8), count=trial["samples"]).astype(bool)


def check(record: Mapping[str, Any]) -> None:
    """Raise `ValueError`, with the field, where a record is not what its schema says or contradicts itself."""
    if not isinstance(record, Mapping):
        raise ValueError(f"a record is a mapping, got {type(record).__name__}")
    missing = [name for name in REQUIRED if name not in record]
    if missing:
        raise ValueError(f"record {record.get('key')}: missing {', '.join(missing)}")
    for name, kinds in REQUIRED.items():
        if not isinstance(record[name], kinds) or (isinstance(record[name], bool) and bool not in kinds):
            raise ValueError(f"record {record['key']}: {name} is {type(record[name]).__name__}, expected "
                             f"{' or '.join(k.__name__.lower() for k in kinds)}")  # fmt: skip
    for name, allowed in (("status", STATUS), ("kind", KINDS)):
        if record[name] not in allowed:
            raise ValueError(f"record {record['key']}: {name} '{record[name]}' is none of {', '.join(allowed)}")
    named = [n for n in ("track", "scenario", "dataset", "attack", "defense", "scale") if not NAME.match(record[n])]
    if named:
        raise ValueError(f"record {record['key']}: {named[0]} is no name: {record[named[0]]!r}")
    if record.get("schema", SCHEMA) != SCHEMA or record["strength"] < 0 or not math.isfinite(record["strength"]):
        raise ValueError(f"record {record['key']}: schema {record.get('schema')} or strength {record['strength']} is "
                         "none that this version writes")  # fmt: skip
    if not all(isinstance(group, int) for group in record["groups"]):
        raise ValueError(f"record {record['key']}: groups holds what is no whole number")
    if record["status"] != "ok" and not record.get("reason"):
        raise ValueError(f"record {record['key']}: status '{record['status']}' without a reason")
    for name, metric in record["metrics"].items():
        if wrong := _metric(metric, len(record["groups"])):
            raise ValueError(f"record {record['key']}: metrics.{name} {wrong}")
        if name in record["unavailable"]:
            raise ValueError(f"record {record['key']}: {name} has values and is unavailable")
    for section, right in HOLDS.items():
        for name, value in record[section].items():
            if not (_means if name == "queries_by_phase" else right)(value):
                raise ValueError(f"record {record['key']}: {section}.{name} is not what its schema says: {value!r:.80}")
    used = record["knowledge"].get("used", [])
    if not isinstance(used, list) or not all(isinstance(name, str) for name in used):
        raise ValueError(f"record {record['key']}: knowledge.used is no list of names")


def _metric(metric: Any, subjects: int) -> str:
    """What is wrong with one metric, in words; "" where nothing is."""
    if not isinstance(metric, Mapping):
        return f"is {type(metric).__name__}, expected a mapping"
    if absent := [part for part in PARTS if part not in metric]:
        return f"without {', '.join(absent)}"
    values, ends = metric["values"], [metric[p] for p in ("low", "high") if metric[p] is not None]
    if not isinstance(values, list) or not _numbers(values) or not _numbers([metric["mean"], metric["median"], *ends]):
        return "holds what is no finite number"
    if len(values) != subjects or metric["n"] != subjects:
        return f"has {len(values)} values and n {metric['n']} for {subjects} subjects"
    for part, found in (("mean", statistics.fmean), ("median", statistics.median)):
        if values and abs(found(values) - metric[part]) > ROUNDED * (1 + abs(metric[part])):
            return f"says {part} {metric[part]}, its values say {found(values)}"
    if len(ends) == 2 and ends[0] > ends[1]:
        return f"has an interval that ends before it begins: {ends}"
    return ""


def _numbers(value: Any) -> bool:
    """Whether a value is a finite number, or lists of them."""
    return all(map(_numbers, value)) if isinstance(value, (list, tuple)) else _number(value)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _means(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_number, value.values()))


def _curve(value: Any) -> bool:
    """Whether a value is a list of [budget, mean]."""
    return isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 and all(map(_number, p)) for p in value)


HOLDS = {
    "utility": _number, "controls": _means, "curves": _curve,
    "cost": lambda value: _number(value) and value >= 0, "unavailable": lambda value: isinstance(value, str),
}  # fmt: skip


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
    told = ("reason",) if record["status"] in ("unavailable", "failed") else ()  # may name folders
    left_out = ("timing", "folder", "provenance", "schema", *told)
    plain = {k: v for k, v in record.items() if k not in left_out}
    plain["unavailable"] = sorted(record["unavailable"])
    plain["knowledge"] = {k: v for k, v in record["knowledge"].items() if k != "opened"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def load(folders: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Records with `timing` (empty where a run was restored without it) and `folder` joined to them."""
    for folder in folders:
        path, timed = folder / "record.json", timing_path(folder)
        timing = read_json(timed, timed) if timed.is_file() else {}
        with whole(path, made_in(folder)):
            record = {**read_json(path, made_in(folder)), "timing": timing, "folder": str(folder)}
        yield record


def made_in(folder: Path) -> Path:
    """The folder that one job makes, of all cells of an attack on a scenario, from that of a cell."""
    return next(iter(folder.parents[2:3]), folder)


def find(root: Path) -> list[Path]:
    """All cell folders below `root`, sorted."""
    return [path.parent for path in visible(root, "record.json")]
