"""Figures without defenses: what attacks reach, and how it grows with queries or passes.

Every figure states its unit and which way leaks more, uses colours that colour-blind readers can tell apart
with a second cue (marker, hatch, label), and is written the same, byte for byte, from the same tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter, NullFormatter, StrMethodFormatter, SymmetricalLogLocator

from inversionbench.core.files import atomic
from inversionbench.survey import words
from inversionbench.survey.words import Quantity

DPI = 130
COLOURS = sns.color_palette("colorblind", 10)
MARKERS = "osD^vPX*<>"
GREY = "#6b6b6b"
LABEL = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}  # behind numbers, over lines
STYLE = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("notebook", font_scale=0.8),
    "font.family": "DejaVu Sans", "axes.edgecolor": "#999999", "grid.color": "#e4e4e4", "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlesize": 10, "legend.frameon": False, "svg.hashsalt": "inversionbench",
}


@dataclass(frozen=True)
class Picture:
    """One figure: its file, what it shows in a sentence (also its alternative text), and its place."""

    path: Path
    caption: str
    scenario: str
    kind: str


@contextmanager
def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any) -> Iterator[tuple[Figure, Any]]:
    """A styled figure and its axes (rows, columns), drawn with Agg; sizes in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def save(figure: Figure, path: Path, axes: Any = None) -> None:
    """Write a PNG without anything that changes from run to run; with `axes`, beside them their common legend."""
    if axes is not None:
        legend(figure, axes)
    with atomic(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def legend(figure: Figure, axes: Any) -> None:
    """The common legend of all panels, beside them."""
    figure.legend(*unique(axes), loc="outside right upper", fontsize=8)


def bars(table: pd.DataFrame, scenario: str, folder: Path) -> Picture | None:
    """What every attack reaches without defense, with interval; controls as grey bars and dashed lines."""
    rows = headline_rows(table, scenario)
    shown = rows[rows["mean"].notna()]
    if shown.empty:
        return None
    metric = quantity(rows)
    factor = metric.factor
    shown = shown.sort_values("mean", ascending=metric.direction != "lower")
    colour = dict(zip(sorted(set(rows["level"])), itertools.cycle(COLOURS)))
    with canvas(7.6, 1.5 + 0.3 * len(shown)) as (figure, axes):
        ax = axes[0, 0]
        for y, row in enumerate(shown.itertuples()):
            control = row.kind == "control"
            ax.barh(y, row.mean * factor, color="#c9c9c9" if control else colour[row.level], height=0.68,
                    hatch="///" if control else None, edgecolor="white")
            low, high = (row.mean if np.isnan(v) else v for v in (row.low, row.high))
            ax.errorbar(row.mean * factor, y, xerr=[[(row.mean - low) * factor], [(high - row.mean) * factor]],
                        color="#222222", capsize=2.5, linewidth=1.1)
            ax.annotate(metric.show(row.mean), (max(high, row.mean, 0) * factor, y), (5, 0),
                        textcoords="offset points", va="center", fontsize=8, bbox=LABEL)
        ax.set_yticks(range(len(shown)), [_attack(row) for row in shown.itertuples()])
        ax.margins(x=0.12)
        roomy(ax, x=metric.step)
        control_lines(ax, rows, metric, vertical=True)
        _legend(ax, colour, shown)
        ax.set_ylim(-0.6, len(shown) - 0.4)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(f"{metric.title}; {words.arrow(metric.direction)}")
        save(figure, folder / f"attacks-{scenario}.png")
    caption = (f"Every attack on {scenario} without defense: {metric.title}, {words.arrow(metric.direction)}. Bars are "
               "means with 95 % intervals over attacked targets; hatched bars are controls, dashed lines the levels of "
               "the other controls. A bar that does not pass the guesses shows no leak.")
    return Picture(folder / f"attacks-{scenario}.png", caption, scenario, "attacks")


def curves(points: pd.DataFrame, table: pd.DataFrame, scenario: str, folder: Path) -> Picture | None:
    """The headline against queries and against passes, undefended; control levels as dashed lines."""
    rows = headline_rows(table, scenario)
    if rows.empty:
        return None
    metric = quantity(rows)
    here = points[(points["scenario"] == scenario) & (points["defense"] == "none") & (points["metric"] == metric.id)]
    several = here.groupby(["axis", "attack"])["budget"].transform("nunique") > 1
    kinds = sorted(set(here.loc[several, "axis"]))
    here = here[several | ((here["kind"] == "control") & here["axis"].isin(kinds))]  # one point of a control is enough
    if not kinds:
        return None
    style = cues(set(here.loc[here["kind"] == "attack", "attack"]))
    with canvas(2.8 + 4 * len(kinds), 3.9, 1, len(kinds), sharey=True) as (figure, axes):
        for ax, axis in zip(axes[0], kinds):
            for (attack, method), line in here[here["axis"] == axis].groupby(["attack", "method"]):
                mean = over_seeds(line)
                marker, colour = style.get(attack, ("x", GREY))
                ax.plot(mean["budget"], mean["value"] * metric.factor, color=colour, marker=marker, markersize=5,
                        linestyle="-" if attack in style else "--", label=words.method("attack", attack, method))
                _last(ax, mean, rows[rows["attack"] == attack].iloc[0], colour, metric)
            least = (spent := here.loc[(here["axis"] == axis) & (here["budget"] > 0), "budget"]).min()
            ax.set_xscale("symlog", linthresh=least)  # a budget of 0 is the start of an attack
            ax.set_xlim(left=0 if (here["budget"] == 0).any() else least * 0.8)
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=least, subs=_steps(spent)))
            ax.tick_params(axis="x", labelsize=8)
            ax.set_xlabel(f"{axis} (log scale)")
        axes[0, 0].set_ylabel(f"{metric.title}\n{words.arrow(metric.direction)}")
        for ax in axes[0]:  # the panels share an axis, so all data come before what fixes its ends
            roomy(ax, y=metric.step)
            control_lines(ax, rows, metric)
        save(figure, folder / f"curves-{scenario}.png", axes)
    caption = (f"{metric.title} of the attacks on {scenario} without defense, the more they spend of what their access "
               f"counts ({' or '.join(kinds)}). Means over targets and seeds, at the last point with its 95 % interval "
               "where it is what the table shows; grey and dashed: controls.")
    return Picture(folder / f"curves-{scenario}.png", caption, scenario, "curves")


def over_seeds(line: pd.DataFrame) -> pd.DataFrame:
    """Mean over cells of each point of an attack's curves; by budget, where they do not have equally many."""
    equal = line.groupby("key")["nth"].nunique().nunique() == 1
    numbers = line.select_dtypes("number").columns.difference(["nth", "strength", "seed"])
    return line.groupby("nth" if equal else line["budget"].rename("place"))[numbers].mean()


def _steps(spent: pd.Series) -> tuple[int, ...]:
    """Which multiples of a power of ten get a number, so that numbers of up to six digits stay apart.

    >>> _steps(pd.Series([300, 9000])), _steps(pd.Series([10, 2000])), _steps(pd.Series([10, 90000]))
    ((1, 2, 5), (1, 3), (1,))
    """
    decades = np.log10(spent.max() / spent.min())
    return (1, 2, 5) if decades < 1.6 else (1, 3) if decades < 2.4 else (1,)


class _Plain(LogFormatter):
    """Plain numbers where matplotlib would write any: within a decade too, where there is room."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def plain_log(axis: Any) -> None:
    """Plain numbers on a logarithmic axis."""
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(_Plain(minor_thresholds=(1.5, 0.5)))


def _last(ax: Any, mean: pd.DataFrame, row: Any, colour: Any, metric: Quantity) -> None:
    """The table's interval at the end of a curve, unless the attack went on to choose among several answers."""
    last = mean.iloc[-1]
    if abs(last["value"] - row["mean"]) * metric.factor < metric.step and not np.isnan(row["low"]):
        low, high = (abs(row[name] - row["mean"]) * metric.factor for name in ("low", "high"))
        ax.errorbar(last["budget"], row["mean"] * metric.factor, yerr=[[low], [high]], color=colour, capsize=2.5,
                    linewidth=1.1)


def headline_rows(table: pd.DataFrame, scenario: str) -> pd.DataFrame:
    """Rows of a table that belong to the headline metric of one scenario."""
    return table[(table["scenario"] == scenario) & table["headline"].astype(bool)]


def quantity(rows: pd.DataFrame) -> Quantity:
    """The metric that these rows show."""
    first = rows.iloc[0]
    return words.metric(first["metric"], first["track"])


def control_levels(rows: pd.DataFrame) -> dict[str, float]:
    """Mean level of every control that the cells carry, by name."""
    columns = [c for c in rows.columns if c.startswith("control_")]
    means = rows[columns].mean()
    return {c.removeprefix("control_"): float(v) for c, v in means.items() if not np.isnan(v)}


def end(rows: pd.DataFrame, reach: str, direction: str) -> tuple[str, float] | None:
    """The control that leaks most among those that mark one end of the scale ("guess" or "ceiling")."""
    levels = {name: v for name, v in control_levels(rows).items() if words.baseline_kind(name) == reach}
    if not levels or not direction:
        return None
    return max(levels.items(), key=lambda item: item[1] if direction == "higher" else -item[1])


def control_lines(ax: Any, rows: pd.DataFrame, metric: Quantity, vertical: bool = False) -> None:
    """Dashed lines at the controls' levels, labelled once for levels that (almost) coincide, above each other where
    they are close; controls far off the data are left out. Draw the data before."""
    low, high = ax.get_xlim() if vertical else ax.get_ylim()
    width = (high - low) or 1.0
    marks = _marks(control_levels(rows), metric, low - 0.35 * width, high + 0.35 * width)
    places = [place for place, _ in marks]
    (ax.set_xlim if vertical else ax.set_ylim)(min([low, *(p - 0.05 * width for p in places)]),
                                               max([high, *(p + 0.05 * width for p in places)]))
    line = {"color": GREY, "linestyle": "--", "linewidth": 1, "zorder": 0.5}
    said = {"textcoords": "offset points", "va": "bottom", "fontsize": 7, "color": GREY, "annotation_clip": False,
            "zorder": 0.7}  # over the lines and under the data
    floor, last, top = 0, -np.inf, -np.inf
    for place, label in marks:
        if vertical:
            floor = floor + 1 if place - last < 0.3 * width else 0  # labels of close lines go above each other
            last = place
            ax.axvline(place, **line)
            align = ("left", "center", "right")[int(np.clip(3 * (place - low) / width, 0, 2))]
            ax.annotate(label, (place, 1), (0, 3 + 10 * floor), xycoords=("data", "axes fraction"), ha=align, **said)
        else:
            ax.axhline(place, **line)
            top = max(place, top + 0.05 * width)  # labels of close lines go above each other
            ax.annotate(label, (0, top), (3, 2), xycoords=("axes fraction", "data"), bbox=LABEL, **said)
    if top > -np.inf:
        ax.set_ylim(top=max(ax.get_ylim()[1], top + 0.06 * width))


def _marks(levels: dict[str, float], metric: Quantity, low: float, high: float) -> list[tuple[float, str]]:
    """(place, label) of each line between two ends, by place.

    >>> _marks({"noise": 0.0, "mode": 0.001, "truth": 0.9}, Quantity("top1", "", "%", 0, 100), -5, 100)
    [(0.0, 'noise, most frequent value 0'), (90.0, 'true data 90')]
    >>> _marks({"noise": 0.0, "mode": 0.01}, Quantity("top1", "", "%", 0, 100), -5, 100)
    [(0.0, 'noise, most frequent value 0 to 1')]
    """
    found: list[list[tuple[float, str]]] = []
    for name, level in sorted(levels.items(), key=lambda item: item[1]):
        place = level * metric.factor
        if low <= place <= high:
            if not found or place - found[-1][0][0] > 0.02 * (high - low):
                found.append([])
            found[-1].append((place, words.label("controls", name)))
    return [(marks[0][0], _said(marks, metric)) for marks in found]


def _said(marks: list[tuple[float, str]], metric: Quantity) -> str:
    """Names of levels that share a line, and the level, or the least and the largest where they differ as shown."""
    names = [name for _, name in marks]
    ends = dict.fromkeys(metric.show(place / metric.factor) for place in (marks[0][0], marks[-1][0]))
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} {' to '.join(ends)}"


def roomy(ax: Any, x: float = 0.0, y: float = 0.0) -> None:
    """No axis spans less than ten steps of what is shown: differences below the last digit stay invisible."""
    for step, get, put in ((x, ax.get_xlim, ax.set_xlim), (y, ax.get_ylim, ax.set_ylim)):
        low, high = get()
        if abs(high - low) < 10 * step:
            middle = (low + high) / 2
            put(middle - 5 * step, middle + 5 * step)


def cues(names: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """A marker and a colour for each name; the pair differs for up to a hundred names."""
    return {name: (MARKERS[(i + i // 10) % 10], COLOURS[i % 10]) for i, name in enumerate(sorted(names))}


def unique(axes: Any) -> tuple[list[Any], list[str]]:
    """Legend entries over all panels, each once."""
    found: dict[str, Any] = {}
    for ax in axes.flat:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _legend(ax: Any, colour: dict[str, Any], shown: pd.DataFrame) -> None:
    levels = sorted(set(shown.loc[shown["kind"] == "attack", "level"]))
    if len(levels) > 1:
        handles = [Patch(color=colour[level], label=words.label("levels", level)) for level in levels]
        ax.legend(handles=handles, fontsize=8, loc="lower right", frameon=True)


def _attack(row: Any) -> str:
    mark = {"partial": " (some seeds)"}.get(row.status, "")
    return words.method("attack", row.attack, row.method) + (" *" if row.rebuilt else "") + mark
