"""Figures across scenarios of the federated track: what leakage depends on.

A study is a set of scenarios that differ in one thing only: images in a batch, local steps of the client, or
training of the attacked model. What a scenario is stands in its records; a figure is drawn where a study has two
values or more. Beside them: spread over images, shares of images that were recovered, and labels rule by rule.
Undefended cells only; intervals are those of the tables (95 %, over attacked clients). Scenarios that differ in
more than one thing make families, which are never pooled: each has a panel or a block of its own.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from inversionbench.core.protocol import Protocol, read_protocol
from inversionbench.survey import words
from inversionbench.survey.figures import GREY, Picture, canvas, cues, quantity, save

if TYPE_CHECKING:
    from inversionbench.survey.build import Survey

TRACK = "federated"
STRONGEST = 6  # attacks in one panel
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """Scenarios that differ in one thing only: scenario -> its value, and what they have in common (flat)."""

    values: Mapping[str, float]
    common: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """One dependence. value: record -> place on the axis. varies: settings that may differ within a study."""

    id: str
    label: str
    value: Callable[[Record], float]
    varies: tuple[str, ...]


def protocol_of(record: Record) -> Protocol:
    """The protocol of a record's scenario, defaults included."""
    return read_protocol(record["parameters"].get("scenario", {}).get("protocol") or {}, record["scenario"])


def _epochs(record: Record) -> float:
    return round(float(record["facts"].get("target_epochs", 0.0)), 1)


STUDIES = (
    Study("batch", "images in a batch", lambda r: protocol_of(r).batch_size, ("batch_size",)),
    Study("steps", "local steps of the client", lambda r: len(protocol_of(r).steps), ("local_batch", "epochs")),
    Study("epochs", "epochs that the attacked model was trained", _epochs, ("rounds of training",)),
)


def draw(survey: Survey, folder: Path) -> list[Picture]:
    """All figures that the records allow."""
    from inversionbench.tracks.federated.figures import spreads

    plain = [r for r in survey.records if r["track"] == TRACK and r["defense"] == "none" and r["status"] == "ok"]
    images = [r for r in plain if "psnr" in r["metrics"]]
    rows = survey.attacks[(survey.attacks["track"] == TRACK) & survey.attacks["headline"].astype(bool)]
    shown = {study: _families(images, rows, study) for study in STUDIES}
    every = pd.concat([rows.iloc[:0], *(own for part in shown.values() for _, own in part)])
    style = cues(set(every.loc[every["kind"] == "attack", "attack"]))  # an attack looks the same in every study
    found: list[Picture | None] = [dependence(part, style, study, folder) for study, part in shown.items() if part]
    found += [spreads.spread(images, folder), spreads.success(images, folder)]
    found += [spreads.labels([r for r in plain if "psnr" not in {*r["metrics"], *r["unavailable"]}], folder)]
    return [picture for picture in found if picture is not None]


def families(found: Sequence[Record], study: Study) -> list[Family]:
    """Scenarios that differ in this one thing, at least two different values in each family; the largest first."""
    sets: dict[str, dict[str, float]] = {}
    known: dict[str, dict[str, Any]] = {}
    for record in found:
        common = _common(record, study)
        same = json.dumps(common, sort_keys=True)
        known[same] = common
        sets.setdefault(same, {})[record["scenario"]] = study.value(record)
    kept = [Family(s, known[same]) for same, s in sorted(sets.items()) if len(set(s.values())) > 1]
    return sorted(kept, key=lambda family: -len(family.values))


def _common(record: Record, study: Study) -> dict[str, Any]:
    """What a scenario is besides the one thing, flat; what only measures the target's utility left out."""
    scenario = record["parameters"].get("scenario", {})
    protocol = {k: v for k, v in protocol_of(record).plain.items() if k not in study.varies}
    training = {k: v for k, v in (scenario.get("training") or {}).items() if not k.startswith("utility")}
    if "rounds of training" in study.varies:
        training.pop("rounds", None)
    model = dict(scenario.get("model") or {})
    return {"data": record["dataset"], "model": model.pop("name", ""), **model, **protocol,
            **{f"training {k}": v for k, v in training.items()}}  # fmt: skip


def titles(found: Sequence[Family]) -> list[str]:
    """The model of each family, and what tells it from the others where that is no default.

    >>> one, two = Family({}, {"model": "mlp", "labels": "known"}), Family({}, {"model": "mlp", "labels": "hidden"})
    >>> titles([one, two])
    ['mlp', 'mlp, labels hidden']
    """
    usual = asdict(Protocol())
    keys = dict.fromkeys(key for family in found for key in family.common)
    told = [k for k in keys if len({json.dumps(f.common.get(k)) for f in found}) > 1 and k != "model"]
    return [", ".join([str(f.common.get("model", "")), *(
        f"{k} {f.common[k]}" for k in told
        if k in f.common and f.common[k] != usual.get(k) and not isinstance(f.common[k], (list, dict)))])
        for f in found]  # fmt: skip


Panel = tuple[str, pd.DataFrame]  # title and rows of one family


def _families(found: Sequence[Record], table: pd.DataFrame, study: Study) -> list[Panel]:
    """The families of a study that some attack spans, each with the rows to draw."""
    sets = families(found, study)
    rows = [_strongest(table[table["scenario"].isin(list(f.values))], f.values) for f in sets]
    return [(title, own) for title, own in zip(titles(sets), rows) if (own["kind"] == "attack").any()]


def dependence(kept: Sequence[Panel], style: Mapping[str, Any], study: Study, folder: Path) -> Picture:
    """Leakage of the strongest attacks against what a study varies, a panel for each family; controls in grey."""
    metric = quantity(kept[0][1])
    with canvas(1.0 + 3.6 * max(len(kept), 1.5), 4.4, 1, len(kept)) as (figure, axes):
        for ax, (title, rows) in zip(axes[0], kept):
            _panel(ax, rows, style, metric.factor)
            ax.set_title(textwrap.fill(title, 42), fontsize=9)
            ax.set_xlabel(study.label)
        axes[0, 0].set_ylabel(f"{metric.title}\n{words.arrow(metric.direction)}")
        save(figure, folder / f"study-{study.id}.png")
    several = ("; each panel is a family of scenarios with a scale of its own" if len(kept) > 1 else "")
    caption = (f"{metric.title} of the strongest attacks without defense against the {study.label} (values equally "
               f"spaced), everything else equal{several}; 95 % intervals over attacked clients, controls in grey. "
               "What lies at the grey lines is no leak.")
    return Picture(folder / f"study-{study.id}.png", caption, TRACK, "overview")


def _panel(ax: Any, rows: pd.DataFrame, style: Mapping[str, Any], factor: float) -> None:
    """All attacks of one family, and its mean image."""
    places = {value: i for i, value in enumerate(sorted(set(rows["x"])))}
    names = list(dict.fromkeys(rows.sort_values("mean", ascending=False)["attack"]))
    for n, name in enumerate(names):
        line = rows[rows["attack"] == name].sort_values("x")
        _line(ax, line, places, 0.05 * (n - (len(names) - 1) / 2), style.get(name), factor)
    mean = rows.groupby("x")["control_mean_image"].mean() if "control_mean_image" in rows else pd.Series()
    if mean.notna().any():
        ax.plot([places[x] for x in mean.index], mean * factor, color=GREY, linestyle=":",
                label=words.label("controls", "mean_image"))
    ax.set_xticks(range(len(places)), [f"{value:g}" for value in places])
    ax.set_xlim(-0.4, len(places) - 0.6)
    ax.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _strongest(rows: pd.DataFrame, places: Mapping[str, float]) -> pd.DataFrame:
    """Rows with a column x: the attacks that reach most of those with two values or more, and all controls."""
    rows = rows[rows["mean"].notna()].assign(x=lambda r: r["scenario"].map(dict(places)))
    several = rows.groupby("attack")["x"].nunique()
    rows = rows[rows["attack"].isin(several.index[several > 1])]
    attacks = rows[rows["kind"] == "attack"]
    order = attacks.groupby("attack")["mean"].max().sort_values(ascending=False).index[:STRONGEST]
    return rows[rows["attack"].isin(order) | (rows["kind"] == "control")]


def _line(ax: Any, line: pd.DataFrame, places: Mapping[float, int], shift: float, cue: Any, factor: float) -> None:
    """One attack with its intervals; without a cue it is a control."""
    marker, colour = cue or ("x", GREY)
    first = line.iloc[0]
    at = [places[x] + shift for x in line["x"]]
    errors = np.nan_to_num([line["mean"] - line["low"], line["high"] - line["mean"]]).clip(min=0) * factor
    ax.errorbar(at, line["mean"] * factor, yerr=errors, color=colour, marker=marker, markersize=5, capsize=2,
                linewidth=1.3, linestyle="-" if cue else "--", label=words.method("attack", first.attack, first.method))
