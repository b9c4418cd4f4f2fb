"""One cell by hand, and what stands behind the numbers of a cell.

`run` keeps its own folder, `<results>/by-hand/<scale>/`, so that the workflow's bookkeeping stays right, and
computes again only what its parameters or code changed.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from inversionbench.core import records
from inversionbench.core.errors import UserError
from inversionbench.core.files import read_json, write_json
from inversionbench.core.scenario import Scenario
from inversionbench.plan import cells
from inversionbench.plan.cells import format_strength
from inversionbench.plan.dag import Plan
from inversionbench.plan.params import Params
from inversionbench.workflow import runner

PARTS = ("SCENARIO", "ATTACK", "DEFENSE", "STRENGTH", "SEED")  # of a cell's key
UNCHANGED_LABELS = {True: "yes", False: "NO", None: "gone, not compared"}


def run(params: Params, key: str) -> str:
    """Run one cell and everything that it needs; returns its record as text."""
    key, (group, strength, seed) = _cell(params, key)
    plan = Plan({**params.raw, "results": str(params.results / "by-hand")})
    here = plan.params
    one = replace(group, strengths=(strength,), seeds=(seed,))
    scenario = here.scenarios[group.scenario]
    defense, at = cells.target_of(here, group.defense, strength)
    do = _Steps(here.folder / "stamps.json")
    data = _data(do, plan, scenario.dataset)
    target = [data, plan.train_target(scenario.name, defense)]
    do(
        f"train-target {scenario.name}/{defense}/{format_strength(at)}",
        target,
        lambda: runner.train_target(here, scenario.name, defense, at),
    )
    needs = [target, plan.attack(group.key)]
    for prior in here.attacks[group.attack].priors(group.scenario):
        needs += _prior(do, plan, prior, scenario, (defense, at), [data, target])
    if scenario.judges:
        judge = scenario.judges
        do(f"train-evaluator {judge}", [data, plan.train_evaluator(judge)], lambda: runner.train_evaluator(here, judge))
    do(f"attack {group.key}", [needs, strength, seed], lambda: runner.attack(here, one))
    failed, folder = runner.evaluate(here, [one]), here.folder / "cells" / key
    if failed:
        raise UserError(describe(folder))
    return describe(folder)


def _data(do: _Steps, plan: Plan, dataset: str) -> list[Any]:
    """Prepare a data set, after those that it combines; returns what it depends on."""
    needs = [*(_data(do, plan, part) for part in plan.params.combined(dataset)), plan.prepare(dataset)]
    do(f"prepare {dataset}", needs, lambda: runner.prepare(plan.params, dataset))
    return needs


def _prior(
    do: _Steps, plan: Plan, prior: str, scenario: Scenario, where: tuple[str, float], on: list[Any]
) -> list[Any]:
    """Train a prior, after the one that it starts from; returns what it depends on."""
    data, target = on
    base = plan.base_of(prior)
    needs = _prior(do, plan, base, scenario, where, on) if base else []
    aware = plan.params.priors[prior].described.attributes.get("target_aware")
    needs.append([data, plan.train_prior(prior), target if aware else None])
    if aware:
        defense, at = where
        do(f"train-target-prior {scenario.name}/{defense}/{format_strength(at)}/{prior}", needs,
           lambda: runner.train_target_prior(plan.params, scenario.name, defense, at, prior))  # fmt: skip
    else:
        do(f"train-prior {scenario.dataset}/{prior}", needs,
           lambda: runner.train_prior(plan.params, scenario.dataset, prior))  # fmt: skip
    return needs


class _Steps:
    """Runs a step unless its stamp says that it ran well with the same parameters and code."""

    def __init__(self, path: Path):
        self.path = path
        self.stamps: dict[str, Any] = read_json(path, path) if path.is_file() else {}

    def __call__(self, name: str, depends: Any, step: Callable[[], int | None]) -> None:
        if self.stamps.get(name) == depends:
            return
        print(f"{name} ...", file=sys.stderr)
        started = time.perf_counter()
        with _ticking():
            failed = step()
        print(f"{name}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
        if not failed:
            self.stamps[name] = depends
            write_json(self.path, self.stamps)


@contextmanager
def _ticking(every: float = 1.0) -> Iterator[None]:
    """Redraw the progress bars every so many seconds: a cell is one step of its bar, and its clock must run."""
    if not sys.stderr.isatty() or importlib.util.find_spec("tqdm") is None:
        yield
        return
    from tqdm import tqdm

    done = threading.Event()

    def tick() -> None:
        while not done.wait(every):
            with suppress(AttributeError, RuntimeError):  # a bar that is being made is listed before it is whole
                for bar in list(getattr(tqdm, "_instances", ())):
                    bar.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def describe(folder: Path) -> str:
    """A record as text for people."""
    record = next(records.load([folder]))
    lines = [f"{record['key']}: {record['status']} {record.get('reason', '')}".rstrip()]
    lines += [f"  warning: {sentence}" for sentence in record["facts"].get("warnings", ())]
    for name, m in record["metrics"].items():
        bounds = "" if m["low"] is None else f" [{m['low']:.4g}, {m['high']:.4g}]"
        lines.append(f"  {name}: {m['mean']:.4g}{bounds}, median {m['median']:.4g}, n = {m['n']}")
    if said := record["facts"].get("guarantee"):
        lines.append(f"  guarantee: {said}")
    lines += [f"  {name}: unavailable, {reason}" for name, reason in record["unavailable"].items()]
    for control, values in record["controls"].items():
        lines.append(f"  control {control}: {_shown(values)}")
    for title in ("utility", "cost", "timing", "knowledge"):
        if record[title]:
            lines.append(f"  {title}: {_shown(record[title])}")
    picture = folder / "gallery.png"
    lines.append(f"  record: {folder / 'record.json'}" + (f", picture: {picture}" if picture.is_file() else ""))
    return "\n".join(lines)


def explain(params: Params, key: str) -> str:
    """The record of a cell, every parameter behind it, and whether inputs and code are still the same."""
    key, _ = _cell(params, key)
    scale = "" if params.scale == "laptop" else f"--scale {params.scale} "
    folder = params.folder / "cells" / key
    if not (folder / "record.json").is_file():
        raise UserError(f"{folder} has no record: run `snakemake --cores all`, or `inversionbench {scale}run {key}`")
    found = runner.describe_cell(params, key)
    record = found["record"]
    lines = [describe(folder), "  parameters:"]
    lines += [f"    {part}: {_shown(values)}" for part, values in record["parameters"].items() if values]
    lines.append("  made from (digest, unchanged since):")
    for name, digest in record["provenance"].items():
        if name in ("device", "numerics", "processor"):
            lines.append(f"    {name}: {digest}")
        elif name == "versions":
            lines.append(f"    versions: {_shown(digest)}")
        else:
            same = found["same_code"] if name == "code" else found["same_inputs"].get(name)
            lines.append(f"    {name}: {digest[:16]} ({UNCHANGED_LABELS[same]})")
    lines.append(f"  again by hand: inversionbench {scale}run {key}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """A value of a record for people: four digits, and no brackets around names.

    >>> _shown({"queries": 8, "accuracy": 0.10000000149, "bytes": 44648.0, "used": ["labels"], "none": []})
    'queries 8, accuracy 0.1, bytes 44648, used labels, none -'
    """
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    if isinstance(value, dict):
        inner = {name: f"({_shown(v)})" if isinstance(v, dict) else _shown(v) for name, v in value.items() if v != {}}
        return ", ".join(f"{name} {v}" for name, v in inner.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_shown, value)) or "-"
    return str(value)


def _cell(params: Params, key: str) -> tuple[str, tuple[cells.Group, float, int]]:
    """The key, and the group, strength and seed behind it, from a key or a path that ends with it; a wrong key is
    answered with the part that is wrong and what may stand there."""
    known = {k: (group, s, n) for group in cells.groups(params) for k, s, n in group.cells()}
    key = key.rpartition("cells/")[2].removesuffix("record.json").strip("/")
    if key in known:
        return key, known[key]
    parts, places = key.split("/"), [k.split("/") for k in known]
    at = next((i for i in range(len(PARTS)) if parts[: i + 1] not in [p[: i + 1] for p in places]), len(PARTS))
    near = difflib.get_close_matches(key, ["/".join(p) for p in places if p[:at] == parts[:at]], n=1, cutoff=0.5)
    hint = f". Did you mean '{near[0]}'?" if near else ""
    if at == len(PARTS):
        raise UserError(f"no cell '{key}': a cell is {'/'.join(PARTS)}, and nothing follows{hint}")
    allowed = dict.fromkeys(p[at] for p in places if p[:at] == parts[:at])
    what = f"no {PARTS[at].lower()} '{parts[at]}'" if at < len(parts) else f"its {PARTS[at].lower()} is missing"
    where = f" in {'/'.join(parts[:at])}" if at else ""
    raise UserError(f"no cell '{key}' ({'/'.join(PARTS)}): {what}{where}{hint or '.'} Allowed: {', '.join(allowed)}")
