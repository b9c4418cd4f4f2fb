"""Figures of the split track: what comes back against the depth of the cut, and what a defense costs the device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from inversionbench.survey import words
from inversionbench.survey.figures import COLOURS, GREY, Picture, canvas, cues, legend, quantity, save

if TYPE_CHECKING:
    from inversionbench.survey.build import Survey

TRACK = "split"
CONTROLS = {"mean_image": ":", "swapped": "--"}
PAID = ("client_parameters", "client_flops", "bytes_sent")
Record = Mapping[str, Any]


def draw(survey: Survey, folder: Path) -> list[Picture]:
    """Attacks that were run at two cuts of a network or more, a panel for each network; devices that pay more or less
    under a defense. Nothing where there is none."""
    rows = survey.attacks
    rows = rows[(rows["track"] == TRACK) & rows["headline"].astype(bool) & rows["mean"].notna()]
    families = [(title, rows[rows["scenario"].isin(list(cuts))].assign(cut=lambda r, c=cuts: r["scenario"].map(c)))
                for title, cuts in depths(survey.records).items()]  # fmt: skip
    several = [(title, own[own.groupby("attack")["cut"].transform("nunique") > 1]) for title, own in families]
    kept = [(title, own) for title, own in several if len(own)]
    found = [_depth(kept, folder)] if kept else []
    paid = costs(survey.frame)
    return [*found, *([_pays(paid, folder)] if len(paid) else [])]


def depths(found: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Data set, and what else tells two networks apart -> scenario -> where it is cut; networks of one cut are left
    out."""
    sets: dict[tuple[str, str], dict[str, int]] = {}
    for record in found:
        scenario = record["parameters"].get("scenario", {}) if record["track"] == TRACK else {}
        if cut := scenario.get("model", {}).get("cut"):
            rest = {k: v for k, v in scenario.items() if k != "subjects"}
            rest["model"] = {k: v for k, v in scenario["model"].items() if k != "cut"}
            sets.setdefault((record["dataset"], json.dumps(rest, sort_keys=True)), {})[record["scenario"]] = cut
    kept = [(data, cuts) for (data, _), cuts in sets.items() if len(set(cuts.values())) > 1]
    names = [data for data, _ in kept]
    return {data if names.count(data) == 1 else f"{data}: {', '.join(cuts)}": cuts for data, cuts in kept}


def _depth(kept: Sequence[tuple[str, pd.DataFrame]], folder: Path) -> Picture:
    metric = quantity(kept[0][1])
    cue = cues({name for _, rows in kept for name in rows["attack"]})
    with canvas(3.2 + 3.4 * len(kept), 3.6, 1, len(kept), sharey=True) as (figure, axes):
        for ax, (title, rows) in zip(axes[0], kept):
            for name, line in rows.sort_values("cut").groupby("attack"):
                marker, colour = cue[str(name)]
                errors = np.nan_to_num([line["mean"] - line["low"], line["high"] - line["mean"]]).clip(min=0)
                ax.errorbar(line["cut"], line["mean"] * metric.factor, yerr=errors * metric.factor, marker=marker,
                            color=colour, capsize=2, label=words.method("attack", str(name), line["method"].iloc[0]))
            for control, style in CONTROLS.items():
                if f"control_{control}" in rows:
                    level = rows.groupby("cut")[f"control_{control}"].mean() * metric.factor
                    ax.plot(level.index, level, color=GREY, linestyle=style, label=words.label("controls", control))
            ax.set(title=title, xlabel="stages of the network on the device", xticks=sorted(set(rows["cut"])))
        axes[0, 0].set_ylabel(f"{metric.title}\n{words.arrow(metric.direction)}")
        legend(figure, axes)
        save(figure, folder / "split-depth.png")
    caption = (f"{metric.title} of what comes back from features, against how much of the network the device computes "
               "before it sends them, without defense; 95 % intervals over victims, controls in grey.")
    return Picture(folder / "split-depth.png", caption, TRACK, "overview")


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """What the device pays under each defense that changes any of `PAID`, as a multiple of no defense: a row for each
    (scenario, defense, strength)."""
    columns = {f"utility_{name}": name for name in PAID}
    if not set(columns) <= set(frame):
        return pd.DataFrame()
    own = frame[(frame["track"] == TRACK) & frame["utility_bytes_sent"].notna()]
    means = own.groupby(["scenario", "defense", "strength"])[list(columns)].mean().rename(columns=columns)
    plain = means.xs("none", level="defense").droplevel("strength")
    ratio = means / plain.reindex(means.index.get_level_values("scenario")).to_numpy()
    return ratio[(ratio - 1).abs().max(axis=1) > 1e-3].dropna()


def _pays(paid: pd.DataFrame, folder: Path) -> Picture:
    labels = [f"{words.method('defense', name)} {strength:g}, {scenario}" for scenario, name, strength in paid.index]
    places = np.arange(len(paid))
    with canvas(9.0, 1.2 + 0.3 * len(paid), 1, len(PAID), sharey=True) as (figure, axes):
        for ax, name in zip(axes[0], PAID):
            ax.barh(places, paid[name], color=COLOURS[0], height=0.6)
            ax.axvline(1, color=GREY, linestyle="--", linewidth=1)
            ax.set(xlabel=f"{words.label('utility', name)}\n(1: no defense)", xlim=(0, None))
        axes[0, 0].set_yticks(places, labels, fontsize=8)
        axes[0, 0].invert_yaxis()
        save(figure, folder / "split-device.png")
    caption = ("What the device keeps, computes and sends for one input under each defense that changes any of it, as "
               "a multiple of no defense.")
    return Picture(folder / "split-device.png", caption, TRACK, "overview")
