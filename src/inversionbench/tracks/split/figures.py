"""Figure of the split track: what comes back against the depth of the cut."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from inversionbench.survey import words
from inversionbench.survey.figures import GREY, Picture, canvas, cues, legend, quantity, save

if TYPE_CHECKING:
    from inversionbench.survey.build import Survey

TRACK = "split"
CONTROLS = {"mean_image": ":", "swapped": "--"}
Record = Mapping[str, Any]


def draw(survey: Survey, folder: Path) -> list[Picture]:
    """One panel for each network that is cut at two places or more; nothing where there is none."""
    rows = survey.attacks
    rows = rows[(rows["track"] == TRACK) & rows["headline"].astype(bool) & rows["mean"].notna()]
    families = [(title, rows[rows["scenario"].isin(list(cuts))].assign(cut=lambda r, c=cuts: r["scenario"].map(c)))
                for title, cuts in depths(survey.records).items()]  # fmt: skip
    kept = [(title, own) for title, own in families if own["cut"].nunique() > 1]
    return [_depth(kept, folder)] if kept else []


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
