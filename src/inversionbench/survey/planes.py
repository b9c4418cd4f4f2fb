"""The headline against a second metric that the track compares: whether both improve together as an attack goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.transforms import Bbox

from inversionbench.survey import words
from inversionbench.survey.figures import (
    GREY,
    LABEL,
    Picture,
    canvas,
    control_levels,
    cues,
    legend,
    over_seeds,
    plain_log,
    save,
)


def plane(points: pd.DataFrame, attacks: pd.DataFrame, scenario: str, folder: Path) -> Picture | None:
    """Every attack without defense as a line from the first images it kept to its answer, or as its answer alone; None
    where the track compares no second metric."""
    rows = attacks[attacks["scenario"] == scenario]
    track = str(rows.iloc[0]["track"])
    other = words.track(track).compared
    rows = rows[rows["headline"].astype(bool) | (rows["metric"] == other)]
    ends = rows[rows["kind"] == "attack"].pivot_table("mean", ["attack", "method"], "metric")
    main = [name for name in ends if name != other]
    if not main or other not in ends or (ends := ends.dropna()).empty:
        return None
    x, y = words.metric(other, track), words.metric(main[0], track)
    here = points[(points["scenario"] == scenario) & (points["defense"] == "none")]
    style = cues(set(ends.index.get_level_values("attack")))
    drawn = []
    with canvas(8.6, 5.2) as (figure, axes):
        ax = axes[0, 0]
        for attack, method in ends.index:
            marker, colour = style[attack]
            line = _line(here[here["attack"] == attack], ends.loc[attack, method])
            across, up = line[other] * x.factor, line[y.id] * y.factor
            ax.plot(across, up, color=colour, linewidth=1, marker=marker, markersize=4,
                    label=words.method("attack", attack, method))
            ax.scatter(across.iloc[-1], up.iloc[-1], color=[colour], marker=marker, s=70, zorder=3,
                       edgecolor="#222222")
            drawn += [*zip(across, up)]
        ax.set_xscale("log")
        plain_log(ax.xaxis)
        ax.set_xlabel(f"{x.title} (log scale); {words.arrow(x.direction)}")
        ax.set_ylabel(f"{y.title}; {words.arrow(y.direction)}")
        legend(figure, axes)
        _crosses(ax, rows, x, y, drawn)
        save(figure, folder / f"plane-{scenario}.png")
    caption = (f"{y.title} against {x.title} on {scenario}, from the first kept images of each attack to its answer "
               "(framed), which is what the table shows; crosses are controls. A line that goes up and to the left "
               "improves by both; one that goes up and to the right convinces the judges by images further from any "
               "private photograph.")
    return Picture(folder / f"plane-{scenario}.png", caption, scenario, "curves")


def _line(points: pd.DataFrame, end: pd.Series) -> pd.DataFrame:
    """Points of one attack by both metrics, means over seeds, and last its answer."""
    wide = points.pivot_table("value", ["key", "nth", "budget"], "metric").reset_index()
    both = list(end.index)
    kept = over_seeds(wide.dropna(subset=both))[both] if set(both) <= set(wide) else pd.DataFrame()
    if len(kept) and np.allclose(kept.iloc[-1], end, rtol=1e-6):
        kept = kept.iloc[:-1]
    return pd.concat([kept, end.to_frame().T], ignore_index=True)


def _crosses(
    ax: Any, rows: pd.DataFrame, x: words.Quantity, y: words.Quantity, drawn: list[tuple[float, float]]
) -> None:
    """The controls that have both metrics; each name stands at the first place near its cross that is free of other
    names, of crosses and of the points `drawn`."""
    across, up = (control_levels(rows[rows["metric"] == q.id]) for q in (x, y))
    names = sorted((n for n in across.keys() & up.keys() if across[n] > 0), key=lambda n: (across[n], n))
    if not names:
        return
    crosses = [(across[n] * x.factor, up[n] * y.factor) for n in names]
    ax.scatter(*zip(*crosses), color=GREY, marker="x", s=36)
    ax.margins(0.08, 0.1)
    ax.figure.draw_without_rendering()  # now places are those of the finished figure
    taken = [Bbox.from_bounds(px - 8, py - 8, 16, 16) for px, py in ax.transData.transform([*drawn, *crosses])]
    for name, cross in zip(names, crosses):
        for shift, align in _shifts():
            text = ax.annotate(words.label("controls", name), cross, shift, textcoords="offset points", fontsize=7,
                               color=GREY, ha=align, va="center", bbox=LABEL,
                               arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5} if shift[1] else None)
            box = text.get_window_extent()
            inside = ax.bbox.x0 < box.x0 and box.x1 < ax.bbox.x1 and ax.bbox.y0 < box.y0 and box.y1 < ax.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            text.remove()
        else:
            text = ax.annotate(words.label("controls", name), cross, (6, 0), textcoords="offset points", fontsize=7,
                               color=GREY, va="center")
        taken.append(text.get_window_extent().padded(4))


def _shifts() -> Iterator[tuple[tuple[int, int], str]]:
    """Offsets in points from a cross, the nearest first, and the alignment of the text."""
    yield from (((6, 0), "left"), ((-6, 0), "right"))
    for step in range(1, 12):
        for up in (9 * step, -9 * step):
            yield from (((0, up), "center"), ((6, up), "left"), ((-6, up), "right"))
