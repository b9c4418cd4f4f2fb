"""The report's galleries: what attacks rebuild, what defenses leave of it, and samples of the priors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inversionbench.files import read_json, visible
from inversionbench.survey import galleries, words
from inversionbench.survey.figures import Picture, headline_rows, quantity

if TYPE_CHECKING:
    from inversionbench.survey.build import Survey

SHOWN = 8  # images in a row


def draw(survey: Survey, folder: Path, run: Path) -> list[Picture]:
    """All galleries of a run, written into `folder`."""
    found = _galleries(survey)
    out: list[Picture] = []
    for _, scenarios in survey.scenarios:
        for scenario in scenarios:
            out += _attacks(survey, found, scenario, folder)
            out += _defenses(survey, found, scenario, folder)
    return [*out, *priors(run)]


def priors(run: Path) -> list[Picture]:
    """The sample sheets below `priors/<dataset>/<prior>/`, with the facts that training left; of priors that ask
    their target (`priors/targets/<scenario>/<defense>/<strength>/<prior>/`) those of undefended targets."""
    out = []
    for sheet in visible(run / "priors", "sheet.png"):
        *place, prior, _ = sheet.relative_to(run / "priors").parts
        if place[0] == "targets" and place[2] != "none":
            continue
        facts = read_json(sheet.with_name("facts.json")) if sheet.with_name("facts.json").is_file() else {}
        said = ", ".join(f"{k.replace('_', ' ')} {_short(v)}" for k, v in sorted(facts.items()) if _plain(v))
        name = f"{prior}, trained on {place[0]}" if place[0] != "targets" else f"{prior}, trained for {place[1]}"
        out.append(Picture(sheet, f"Samples of the prior {name}" + (f" ({said})" if said else "") + ".", "", "prior"))
    return out


def _galleries(survey: Survey) -> dict[tuple[str, str, str, float], dict[str, Any]]:
    """(scenario, attack, defense, strength) -> arrays of the first seed that left a gallery."""
    found: dict[tuple[str, str, str, float], dict[str, Any]] = {}
    for record in sorted(survey.records, key=lambda r: r["seed"]):
        place = (record["scenario"], record["attack"], record["defense"], float(record["strength"]))
        path = Path(record["folder"]) / "gallery.npz"
        if place not in found and path.is_file():
            found[place] = galleries.read(path)
    return found


def _attacks(survey: Survey, found: dict[Any, Any], scenario: str, folder: Path) -> Iterator[Picture]:
    """One gallery per attack without defense, strongest first."""
    rows = headline_rows(survey.attacks, scenario)
    metric = quantity(rows)
    order = rows.sort_values("mean", ascending=metric.direction == "lower").sort_values("kind", kind="stable")
    for row in order.itertuples():
        arrays = found.get((scenario, row.attack, "none", 0.0))
        if arrays is None:
            continue
        path = folder / f"gallery-{scenario}-{row.attack}.png"
        labels = {**dict(zip(galleries.ROWS, galleries.ROWS)), "nearest": words.track(row.track).nearest}
        galleries.save(path, galleries.labelled({labels[name]: arrays[name] for name in arrays}, SHOWN))
        name = words.method("attack", row.attack, row.method)
        caption = f"{name}: {metric.label} {metric.show(row.mean)} {metric.unit}".strip()
        yield Picture(path, f"{caption}. Rows: {', '.join(labels[name] for name in arrays)}.", scenario, "gallery")


def _defenses(survey: Survey, found: dict[Any, Any], scenario: str, folder: Path) -> Iterator[Picture]:
    """For every defense, what the undefended strongest attack with pictures rebuilds at every strength."""
    rows = headline_rows(survey.attacks, scenario)
    metric = quantity(rows)
    real = rows[rows["kind"] == "attack"].sort_values("mean", ascending=metric.direction == "lower")
    inert = {(r["attack"], r["defense"]) for r in survey.records if r["inert"]}
    defenses = sorted({p[2] for p in found if p[0] == scenario and p[2] != "none"})
    for defense in defenses:
        for row in real.itertuples():
            plain = found.get((scenario, row.attack, "none", 0.0))
            strengths = sorted(p[3] for p in found if p[:3] == (scenario, row.attack, defense))
            strips = _strips(plain, {s: found[scenario, row.attack, defense, s] for s in strengths})
            if (row.attack, defense) in inert or not strips:
                continue
            path = folder / f"gallery-{scenario}-{defense}.png"
            galleries.save(path, galleries.labelled(strips, SHOWN))
            attack, name = words.method("attack", row.attack, row.method), words.method("defense", defense)
            yield Picture(path, f"{name}: what {attack} rebuilds at every strength.", scenario, "defended")
            break


def _strips(plain: dict[str, Any] | None, defended: dict[float, dict[str, Any]]) -> dict[str, np.ndarray]:
    """Original, undefended, then the strengths that attack the same originals; empty without any."""
    if not plain or "original" not in plain or "reconstruction" not in plain:
        return {}
    same = {s: g for s, g in defended.items()
            if {"original", "reconstruction"} <= g.keys() and np.array_equal(g["original"], plain["original"])}
    rows = {f"strength {s:g}": g["reconstruction"] for s, g in same.items()}
    return {"original": plain["original"], "no defense": plain["reconstruction"], **rows} if rows else {}


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
