"""What went wrong in a run, and why: steps that left nothing, and cells that failed.

A step that fails leaves no output, only its log; whatever waits for it is not run. A cell that fails leaves a record
that says so, and its job ends well, so that the other cells of the job are kept and shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from inversionbench.core import records
from inversionbench.plan import cells
from inversionbench.plan.cells import Group, format_strength
from inversionbench.plan.dag import DATA_FILES, Plan

LINES = 4  # of a log, at most
MOST = 10  # failed cells that are named


@dataclass(frozen=True)
class Step:
    """One job: its command, its log below `logs/`, what it writes and reads."""

    command: str
    log: Path
    outputs: list[str]
    inputs: list[str] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """The last lines of its log; nothing where it did not run or said nothing."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.is_file() else []
        return [line.removeprefix("inversionbench: ") for line in lines if line.strip()][-LINES:]

    @property
    def reason(self) -> str:
        if not self.log.is_file():
            return "not run"
        return f"{self.command} failed: {self.said[-1] if self.said else 'it was stopped and says nothing'}"


class Failures:
    """Of the planned run in the folder of its results."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.folder = plan.folder
        self.steps = {path: step for step in _steps(plan) for path in step.outputs}

    @cached_property
    def absent(self) -> dict[str, Step]:
        """Key of every planned cell without a record -> the step that it waits for.

        So is a cell whose record is older than the failure of a step that it is made from: its number is outdated.
        """
        out = {}
        for group in self.plan.groups.values():
            evaluate = self.steps[f"{self.folder}/cells/{group.scenario}/{group.attack}"]
            blamed = self.waits_for(group)
            for key, _, _ in group.cells():
                record = self.folder / "cells" / key / "record.json"
                if not record.is_file():
                    out[key] = blamed or evaluate
                elif blamed and blamed.log.is_file() and blamed.log.stat().st_mtime > record.stat().st_mtime:
                    out[key] = blamed
        return out

    def waits_for(self, group: Group) -> Step | None:
        """The first step that the evaluation of a group waits for; None where it has all that it needs."""
        return self._first_missing(self.plan.judged(group))

    def _first_missing(self, paths: list[str]) -> Step | None:
        """The first step on the way to these paths, their own included, whose output is not there."""
        for path in paths:
            step = self.steps[path]
            if found := self._first_missing(step.inputs) or (None if Path(path).exists() else step):
                return found
        return None

    def half_ready(self) -> dict[str, list[Group]]:
        """Attacks (scenario/attack) whose evaluation waits for some of their groups -> the groups that are ready."""
        ready: dict[str, list[Group]] = {}
        waiting = set()
        for group in self.plan.groups.values():
            attack = f"{group.scenario}/{group.attack}"
            if self.waits_for(group):
                waiting.add(attack)
            else:
                ready.setdefault(attack, []).append(group)
        return {attack: groups for attack, groups in ready.items() if attack in waiting}

    @cached_property
    def failed_steps(self) -> list[Step]:
        """Steps that ran, left nothing, and are waited for."""
        return list({s.command: s for s in self.absent.values() if s.log.is_file()}.values())

    @cached_property
    def failed_cells(self) -> dict[str, str]:
        """Key -> reason of every planned cell whose record says that it failed."""
        found = records.load(records.find(self.folder / "cells"))
        planned = cells.planned(self.plan.params) - self.absent.keys()
        return {r["key"]: r["reason"] for r in found if r["status"] == "failed" and r["key"] in planned}

    def told(self) -> list[str]:
        """What failed, for the end of a run: each step with the last lines of its log, each cell with its reason."""
        lines = []
        for step in self.failed_steps:
            waiting = sum(s is step for s in self.absent.values())
            lines.append(f"FAILED {step.command}, and with it {waiting} cells ({step.log}):")
            lines += [f"    {line}" for line in step.said or ["it was stopped and says nothing"]]
        if self.failed_cells:
            lines.append(f"FAILED {len(self.failed_cells)} cells (traceback: {self.folder}/logs/):")
            lines += [f"    {key}: {reason}" for key, reason in list(self.failed_cells.items())[:MOST]]
        if len(self.failed_cells) > MOST:
            lines.append(f"    and {len(self.failed_cells) - MOST} more, in the table")
        return lines

    def try_again(self) -> bool:
        """Make what the failed cells were made by older than its inputs, so that the next run does it again.

        Returns whether anything of it was not so already.
        """
        new = False
        for key, reason in self.failed_cells.items():
            scenario, attack, defense, *_ = key.split("/")
            at_attack = reason.startswith("attack:")
            parts = ("reconstructions", scenario, attack, defense) if at_attack else ("cells", scenario, attack)
            stamp = self.folder.joinpath(*parts, ".snakemake_timestamp")  # Snakemake's time of a folder
            with suppress(FileNotFoundError):
                new |= stamp.stat().st_mtime > 1
                os.utime(stamp, (1, 1))
        return new


def _steps(plan: Plan) -> Iterator[Step]:
    """Every job of a run, as in workflow/rules."""
    folder, logs = str(plan.folder), plan.folder / "logs"

    def step(rule: str, names: tuple[str, ...], outputs: list[str], inputs: list[str]) -> Step:
        log = logs.joinpath(rule.replace("-", "_").replace("target_prior", "prior"), *names)
        return Step(" ".join((rule, *names)), log.with_name(log.name + ".log"), outputs, inputs)

    for d in plan.datasets:
        yield step("prepare", (d,), plan.data(d, *DATA_FILES[1:]), plan.prepare_inputs(d))
    for s, d, x in plan.targets:
        made = f"{folder}/targets/{s}/{d}/{format_strength(x)}"
        needs = _all(plan, plan.dataset_of(s))
        yield step("train-target", (s, d, format_strength(x)), [f"{made}/released", f"{made}/truth"], needs)
    for judge in plan.judges:
        needs = _all(plan, plan.params.evaluators[judge]["dataset"])
        yield step("train-evaluator", (judge,), [f"{folder}/evaluators/{judge}"], needs)
    for path in plan.priors:
        names = tuple(path.removeprefix(f"{folder}/priors/").split("/"))
        if names[0] == "targets":
            yield step("train-target-prior", names[1:], [path], plan.target_prior_inputs(*names[1:]))
        else:
            yield step("train-prior", names, [path], plan.data(names[0], "public"))
    for key in plan.groups:
        made = f"{folder}/reconstructions/{key}"
        yield step("attack", tuple(key.split("/")), [made], plan.attack_inputs(key))
    for path in plan.cell_outputs():
        names = tuple(path.removeprefix(f"{folder}/cells/").split("/"))
        yield step("evaluate", names, [path], plan.evaluate_inputs("/".join(names)))


def _all(plan: Plan, dataset: str) -> list[str]:
    return plan.data(dataset, *DATA_FILES[1:])
