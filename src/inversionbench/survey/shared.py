"""What attacks that only ask cost for each class: all classes attacked, or one alone that pays what serves all.

Some queries serve every class at once (the images of which an inverse network learns, the labels that teach a GAN):
their number stands in a record's facts as `shared_queries`. Of n answers for K classes at b queries each, s shared,

    all:    n b / K                   one alone:    min(n b, s) + max(n b - s, 0) / K
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from inversionbench.survey import words
from inversionbench.survey.collect import axis
from inversionbench.survey.figures import GREY, Picture, canvas, cues, headline_rows, legend, over_seeds, quantity, save

if TYPE_CHECKING:
    from inversionbench.survey.build import Survey

PANELS = {"all": "queries per class, all attacked", "alone": "queries for one class alone"}


def prices(spent: float, shared: float, classes: int) -> tuple[float, float]:
    """Queries per class, and for one alone, where an attack on `classes` spent so many, `shared` of them for all.

    >>> prices(1000, 400, 10), prices(300, 400, 10)
    ((100.0, 460.0), (30.0, 300.0))
    """
    return spent / classes, min(spent, shared) + max(spent - shared, 0) / classes


def points(record: Mapping[str, Any], metric: str) -> list[dict[str, Any]]:
    """The curve of a record of an attack that asks, at both prices."""
    answers, classes = len(record["groups"]), len(set(record["groups"]))
    rows = []
    for nth, (budget, value) in enumerate(record["curves"].get(metric, ())):
        each, alone = prices(budget * answers, record["facts"].get("shared_queries", 0), classes)
        rows.append({"key": record["key"], "nth": nth, "budget": each, "all": each, "alone": alone, "value": value,
                     **{name: record[name] for name in ("attack", "method", "kind")}})  # fmt: skip
    return rows


def draw(survey: Survey, scenario: str, folder: Path) -> Picture | None:
    """Two panels with one headline; nothing where no attack shares queries."""
    rows = headline_rows(survey.attacks, scenario)
    found = [r for r in survey.records if r["scenario"] == scenario and r["defense"] == "none" and r["status"] == "ok"
             and axis(r["level"]) == "queries"]  # fmt: skip
    if rows.empty or not any(r["facts"].get("shared_queries") for r in found):
        return None
    metric = quantity(rows)
    here = pd.DataFrame([row for r in found for row in points(r, metric.id)])
    if here.empty:
        return None
    style = cues(set(here.loc[here["kind"] == "attack", "attack"]))
    with canvas(10.4, 4.2, 1, 2, sharey=True) as (figure, axes):
        for ax, (price, label) in zip(axes[0], PANELS.items()):
            for (attack, method), line in here.groupby(["attack", "method"]):
                marker, colour = style.get(attack, ("x", GREY))
                mean = over_seeds(line)
                ax.plot(mean[price], mean["value"] * metric.factor, color=colour, marker=marker, markersize=5,
                        linestyle="-" if attack in style else "--", label=words.method("attack", attack, method))
            ax.set_xscale("log")
            ax.set_xlabel(f"{label} (log scale)")
        axes[0, 0].set_ylabel(f"{metric.title}\n{words.arrow(metric.direction)}")
        legend(figure, axes)
        save(figure, folder / f"shared-{scenario}.png")
    caption = (f"{metric.title} on {scenario} without defense by what an attack asked: left, queries that serve all "
               "classes divided by their number; right, all of them charged to one class. Grey and dashed: controls.")
    return Picture(folder / f"shared-{scenario}.png", caption, scenario, "curves")
