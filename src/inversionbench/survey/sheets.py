"""The report's galleries: what attacks rebuild, what defenses leave of it, and samples of the priors."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inversionbench.core.files import read_json, visible, whole
from inversionbench.core.records import made_in
from inversionbench.survey import galleries, words
from inversionbench.survey.figures import Picture, headline_rows, quantity
from inversionbench.survey.maps import judged

if TYPE_CHECKING:
    import pandas as pd

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
        path = sheet.with_name("facts.json")
        facts = read_json(path, path.parent) if path.is_file() else {}
        said = ", ".join(f"{k.replace('_', ' ')} {_short(v)}" for k, v in sorted(facts.items()) if _plain(v))
        said += "".join(f"; {sentence}" for sentence in facts.get("warnings", ()))
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
            with whole(path, made_in(path.parent)):
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
        name = words.method("attack", row.attack, row.method)
        labels = {"original": "original", "reconstruction": _lines(name), "nearest": words.track(row.track).nearest}
        rows = {label: arrays[part] for part, label in labels.items() if part in arrays}
        galleries.save(path, galleries.labelled(rows, SHOWN, {labels["reconstruction"]: _unstarted(arrays)}))
        caption = f"{name}: {metric.label} {metric.show(row.mean)} {metric.unit}".strip()
        shown = ", ".join("reconstruction" if part == "reconstruction" else labels[part] for part in labels
                          if part in arrays)
        yield Picture(path, f"{caption}. Rows: {shown}.", scenario, "gallery")


def _defenses(survey: Survey, found: dict[Any, Any], scenario: str, folder: Path) -> Iterator[Picture]:
    """For every defense, what the strongest attack of the tables rebuilds without it and at every strength."""
    rows = headline_rows(survey.attacks, scenario)
    up = quantity(rows).direction == "lower"
    real = rows[rows["kind"] == "attack"].sort_values("mean", ascending=up)
    for defense, part in judged(survey.defenses, scenario).sort_values("mean", ascending=up).groupby("defense"):
        for row in real.itertuples():
            strips = _strips(found, part, found.get((scenario, row.attack, "none", 0.0), {}))
            if not strips:  # its originals are those of no defended cell
                continue
            label = _lines(f"no defense\n{words.method('attack', row.attack, row.method)}")
            strips = {label: found[scenario, row.attack, "none", 0.0], **strips}
            pictures = {label: arrays["reconstruction"] for label, arrays in strips.items()}
            blanks = {label: _unstarted(arrays) for label, arrays in strips.items()}
            path, name = folder / f"gallery-{scenario}-{defense}.png", words.method("defense", str(defense))
            galleries.save(path, galleries.labelled({"original": strips[label]["original"], **pictures}, SHOWN, blanks))
            caption = f"{name}: what the strongest attack rebuilds at every strength (knows it: the defense)."
            yield Picture(path, caption, scenario, "defended")
            break


def _strips(found: dict[Any, Any], part: pd.DataFrame, plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Label -> the gallery of the strongest attack at each strength, over access levels, of those with the originals of
    `plain`. part: the rows of one defense, strongest first."""
    out = {}
    for strength, settings in part.groupby("strength"):
        for row in settings.itertuples():
            arrays = found.get((row.scenario, row.entry, row.defense, strength), {})
            if _same(arrays, plain):
                name = words.method("attack", row.entry, row.method) + (", knows it" if row.worse == "aware" else "")
                out[_lines(f"strength {strength:g}\n{name}")] = arrays
                break
    return out


def _same(arrays: dict[str, Any], plain: dict[str, Any]) -> bool:
    """Whether two galleries show reconstructions of the same originals."""
    known = {"original", "reconstruction"}
    return known <= arrays.keys() and known <= plain.keys() and np.array_equal(arrays["original"], plain["original"])


def _unstarted(arrays: dict[str, Any]) -> Any:
    return arrays.get(galleries.UNSTARTED, ())


def _lines(label: str) -> str:
    """A label in lines that stay narrow."""
    return "\n".join(line for part in label.split("\n") for line in textwrap.wrap(part, 20))


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
