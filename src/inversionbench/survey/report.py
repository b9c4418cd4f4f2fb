"""survey.md and survey.html: the same tables, the second with figures, in one file without network.

The report reads without scripts; a few lines of script only let tables be sorted. It holds no times and no
host names, so equal records give equal bytes.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inversionbench import __version__
from inversionbench.survey import changes, checks, figures, glance, remarks, result, sounds, view, words
from inversionbench.survey.figures import Picture

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

    from inversionbench.survey.build import Survey

CELLS = "../cells/"  # from the report to the records
KINDS = ("attacks", "curves", "heat", "tradeoff", "traffic", "knowing", "each", "gallery", "defended")


def markdown(survey: Survey) -> str:
    """survey.md."""
    return environment(False).get_template("survey.md.j2").render(**_context(survey)).rstrip("\n") + "\n"


def html(survey: Survey, pictures: list[Picture]) -> str:
    """survey.html, with every picture inside."""
    context, heard = _context(survey), sounds.embedded(survey)
    for track in context["tracks"]:
        track["pictures"] = [p for p in pictures if p.kind == "overview" and p.scenario == track["about"].id]
        for scenario in track["scenarios"]:
            scenario["sounds"] = heard.get(scenario["name"], [])
            scenario["pictures"] = {
                kind: [p for p in pictures if p.scenario == scenario["name"] and p.kind == kind] for kind in KINDS
            }
    priors = [p for p in pictures if p.kind == "prior"]
    return environment(True).get_template("survey.html.j2").render(**context, priors=priors)


def costs(scale: str, shown: list[view.Table]) -> str:
    """costs.html: tables of what was measured by a clock."""
    return environment(True).get_template("costs.html.j2").render(scale=scale, tables=shown, link="../cells/")


def _context(survey: Survey) -> dict[str, Any]:
    return {
        "scale": survey.scale,
        "about_scale": words.words()["scales"].get(survey.scale, ""),
        "version": __version__,
        "cells": len(survey.records),
        "statuses": sorted(Counter(r["status"] for r in survey.records).items()),
        "absent": survey.absent,
        "problems": checks.problems(survey.checks),
        "alarms": checks.alarms(survey.defenses),
        "verdicts": Counter(c.verdict for c in survey.checks),
        "result": result.sentences(survey.attacks, survey.defenses, survey.unanswered),
        "glance": glance.table(survey.attacks, survey.defenses, {r["scenario"]: setting(r) for r in survey.records},
                              survey.unanswered),
        "tracks": [_track(survey, name, scenarios) for name, scenarios in survey.scenarios],
        "provenance": _provenance(survey),
        "parameters": json.dumps(survey.parameters, indent=1, sort_keys=True) if survey.parameters else "",
        "words": words,
        "link": CELLS,
    }


def _track(survey: Survey, name: str, scenarios: list[str]) -> dict[str, Any]:
    part = survey.attacks[survey.attacks["track"] == name]
    columns = [c for c in part.columns[part.notna().any()] if c.startswith("control_")]
    controls = sorted(c.removeprefix("control_") for c in columns)
    said = words.track(name)
    changed = changes.measured(survey).get(name)
    return {
        "about": said,
        "columns": _columns(part, name),
        "controls": [(words.label("controls", c), words.note("controls", c)) for c in controls],
        "changes": None if changed is None else changes.table(changed, name),
        "scenarios": [_scenario(survey, scenario) for scenario in scenarios],
    }


def _columns(part: pd.DataFrame, track: str) -> list[tuple[str, str]]:
    """(label, what it is) of every metric that a track shows, its variants once."""
    shown = {name.partition("[")[0].removesuffix("_nonmembers") for name in part.loc[part["mean"].notna(), "metric"]}
    order = dict.fromkeys([*words.track(track).directions, *sorted(shown)])
    found = [words.metric(name, track) for name in order if name in shown]
    return [(metric.label, metric.note) for metric in found if metric.note]


def _scenario(survey: Survey, name: str) -> dict[str, Any]:
    part = survey.attacks[survey.attacks["scenario"] == name]
    defended = survey.defenses[survey.defenses["scenario"] == name]
    own = [r for r in survey.records if r["scenario"] == name]
    first, said = own[0], remarks.of(own)
    headline = figures.quantity(figures.headline_rows(survey.attacks, name))
    return {
        "name": name,
        "dataset": first["dataset"],
        "model": part.iloc[0]["model"],
        "headline": headline,
        "seeds": sorted({r["seed"] for r in own}),
        "short": setting(first),
        "setting": json.dumps(first["parameters"].get("scenario", {}), indent=1, sort_keys=True),
        "attacks": view.attack_table(survey.attacks, name, said),
        "defenses": view.defense_table(survey.defenses, name, said),
        "pairs": view.pair_table(survey.defenses, name, said),
        "absent_metrics": view.absent_metrics(part),
        "more_metrics": [q.label for q in view.other_metrics(part, headline.id)[view.MOST :]],
        "absent_attacks": view.absent_attacks(part),
        "rebuilt": (bool(part["rebuilt"].any()), bool(defended["rebuilt"].any())),  # among attacks, among defenses
        "adaptive": bool((figures.headline_rows(defended, name)["worse"] == "aware").any()),
        "remarks": said,
        "pictures": {},
    }


def setting(record: Mapping[str, Any]) -> str:
    """A scenario in a few words: its model, and what its protocol and training say.

    >>> setting({"model": "mlp", "parameters": {"scenario": {"protocol": {"batch_size": 4, "labels": "hidden"}}}})
    'mlp, batch size 4, labels hidden'
    """
    given = record["parameters"].get("scenario", {})
    model = given.get("model") or {"name": record["model"]}
    parts = {"": {**model, **(given.get("protocol") or {})}, "training ": given.get("training") or {}}
    plain = [f"{part}{k} {v}".replace("_", " ") for part, said in parts.items() for k, v in said.items()
             if k != "name" and isinstance(v, (str, int, float)) and not k.startswith("utility")]
    return ", ".join([str(model.get("name", record["model"])), *plain])


def _provenance(survey: Survey) -> list[tuple[str, str]]:
    """Versions and digests behind the numbers, each once."""
    made = [r["provenance"] for r in survey.records]
    versions = sorted({f"{k} {v}" for p in made for k, v in (p.get("versions") or {}).items()})
    data = sorted({f"{r['dataset']} {str(r['provenance'].get('data'))[:12]}" for r in survey.records
                   if r["provenance"].get("data")})
    counted = [(kind, len({p[kind] for p in made if p.get(kind)})) for kind in ("code", "target", "prior", "evaluator")]
    rows = [("versions", ", ".join(versions)), ("data (first 12 digits of the digest)", ", ".join(data))]
    rows += [(f"different {kind} digests", str(n)) for kind, n in counted if n]
    return rows


@cache
def environment(escape: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(loader=PackageLoader("inversionbench.survey", "templates"), autoescape=escape,
                      undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters["uri"] = _uri
    env.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return env


def _uri(path: Path) -> str:
    """A picture as a data URI."""
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()
