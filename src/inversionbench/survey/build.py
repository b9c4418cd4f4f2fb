"""The survey step: all records of a run -> tables, figures and report, written as one folder.

    cells.parquet   the tidy frame, one row per cell and metric
    attacks.csv     attacks without defense     defenses.csv   defenses against attacks     curves.csv
    changes.csv     pairs of entries that differ in one thing, where there are any
    metrics.json    flat headline numbers, for DVC
    survey.md       the tables for reading      survey.html    the report, one file
    figures/        what the report shows

Nothing here was measured by a clock; seconds and memory go to `timings/` beside the folder (see `costs.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.core.files import atomic_folder, write_text
from inversionbench.survey import (
    blind,
    bounds,
    changes,
    checks,
    collect,
    contrasts,
    costs,
    defended,
    figures,
    heat,
    maps,
    planes,
    price,
    report,
    shared,
    sheets,
    tables,
    words,
)
from inversionbench.survey.checks import Check
from inversionbench.survey.figures import Picture

if TYPE_CHECKING:
    from inversionbench.plan.params import Params


@dataclass(frozen=True)
class Survey:
    """Everything that is shown. absent: key of each planned cell without a record -> why. unanswered: (scenario,
    level) -> names of the planned attacks of which no undefended cell has a record."""

    scale: str
    records: list[dict[str, Any]]
    frame: pd.DataFrame
    attacks: pd.DataFrame
    defenses: pd.DataFrame
    curves: pd.DataFrame
    checks: list[Check]
    absent: Mapping[str, str] = field(default_factory=dict)
    unanswered: Mapping[tuple[str, str], list[str]] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scenarios(self) -> list[tuple[str, list[str]]]:
        """(track, its scenarios), in the order of `words.yaml`."""
        pairs = {(r["track"], r["scenario"]) for r in self.records}
        tracks = sorted({track for track, _ in pairs}, key=lambda t: (words.place(t), t))
        return [(track, sorted((s for t, s in pairs if t == track), key=words.natural)) for track in tracks]


def build(params: Params) -> list[str]:
    """The survey of a run, into `<results>/<scale>/survey/`; returns what is wrong with the records.

    Shows the cells that the parameters ask for; records of others, left from earlier parameters, are not
    shown, and planned cells without a record are listed with the reason.
    """
    from inversionbench.plan import cells
    from inversionbench.plan.dag import Plan
    from inversionbench.survey.failures import Failures

    planned = cells.planned(params)
    absent = {key: step.reason for key, step in sorted(Failures(Plan(params.raw)).absent.items())}
    found = [r for r in collect.read(params.folder / "cells") if r["key"] in planned and r["key"] not in absent]
    survey = make(found, params.scale, absent, params.raw, _unanswered(params, absent), params.folder)
    with atomic_folder(params.folder / "survey") as folder:
        write(survey, folder, params.folder)
    costs.write(params, found)
    return checks.problems(survey.checks)


def _unanswered(params: Params, absent: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """By scenario and level, the attacks (no controls) that were to run without defense and have no record."""
    out: dict[tuple[str, str], list[str]] = {}
    for scenario, attack, defense, *_ in dict.fromkeys(tuple(key.split("/")[:3]) for key in absent):
        entry = params.attacks[attack]
        if defense == "none" and not entry.described.attributes.get("control"):
            name = words.method("attack", attack, entry.method)
            out.setdefault((scenario, entry.level(scenario)), []).append(name)
    return out


def make(
    found: list[dict[str, Any]], scale: str, absent: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None, unanswered: Mapping[tuple[str, str], list[str]] | None = None,
    run: Path | None = None,
) -> Survey:
    """All frames and tables from the records, and from what people answered in the folder of the run."""
    if not found:
        raise UserError("no records: run the cells first (`snakemake --cores all cells`)")
    frame = collect.tidy(found)
    if run:
        frame = blind.rows(frame, run)
    checked = checks.verify(found)
    return Survey(
        scale, found, frame, tables.attacks(frame), defended.defenses(frame, checked, price.measured(found)),
        collect.curves(found), checked, absent or {}, unanswered or {}, parameters or {},
    )


def write(survey: Survey, folder: Path, run: Path) -> None:
    """Write all files; `run` is the folder that holds `cells/` and `priors/`."""
    collect.write(survey.frame, folder / "cells.parquet")
    tables.write(folder / "attacks.csv", survey.attacks)
    tables.write(folder / "defenses.csv", survey.defenses)
    tables.write(folder / "curves.csv", survey.curves)
    if found := changes.measured(survey):
        changed = pd.concat(found.values(), ignore_index=True)
        by_seed = changed["by_seed"].map(lambda values: " ".join(f"{v:.6g}" for v in values))
        tables.write(folder / "changes.csv", changed.assign(by_seed=by_seed))
    tables.write_headlines(folder / "metrics.json", survey.attacks, survey.defenses)
    pictures = [*draw(survey, folder / "figures"), *sheets.draw(survey, folder / "figures", run)]
    write_text(folder / "survey.md", report.markdown(survey))
    write_text(folder / "survey.html", report.html(survey, pictures))


def draw(survey: Survey, folder: Path) -> list[Picture]:
    """All figures, by scenario; then those that tracks draw themselves."""
    out: list[Picture | None] = []
    for track, scenarios in survey.scenarios:
        out.append(contrasts.overview(survey.attacks, survey.defenses, track, scenarios, folder))
        for scenario in scenarios:
            out += [
                figures.bars(survey.attacks, scenario, folder),
                figures.curves(survey.curves, survey.attacks, scenario, folder),
                shared.draw(survey, scenario, folder),
                planes.plane(survey.curves, survey.attacks, scenario, folder),
                heat.draw(survey.attacks, survey.defenses, scenario, folder),
                maps.tradeoff(survey.attacks, survey.defenses, scenario, folder),
                maps.traffic(survey.frame, survey.attacks, survey.defenses, scenario, folder),
                contrasts.knowing(survey.attacks, survey.defenses, scenario, folder),
                bounds.bound(survey.frame, survey.attacks, survey.defenses, scenario, folder),
                maps.each(survey.defenses, scenario, folder),
            ]
    own = [importlib.import_module(registry.module_of(path)).draw for path in registry.figures()]
    return [*(picture for picture in out if picture is not None), *changes.draw(survey, folder),
            *(picture for draws in own for picture in draws(survey, folder))]
