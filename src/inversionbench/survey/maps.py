"""Figures of defenses: attack x defense heat map, and leakage against utility with its Pareto front."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns

from inversionbench.survey import collect, words
from inversionbench.survey.defended import STRONGEST
from inversionbench.survey.figures import (
    COLOURS,
    Picture,
    canvas,
    control_lines,
    cues,
    end,
    headline_rows,
    quantity,
    roomy,
    save,
    unique,
)
from inversionbench.survey.words import Quantity


def heat(attacks: pd.DataFrame, defenses: pd.DataFrame, scenario: str, folder: Path) -> Picture | None:
    """Rows: no defense, then every defense at every strength; columns: attacks. Dark leaks more."""
    plain, rows = headline_rows(attacks, scenario), headline_rows(defenses, scenario)
    rows = rows[rows["attack"] != STRONGEST]
    if rows.empty:
        return None
    metric = quantity(rows)
    values, text = _grid(plain, rows, metric)
    colours = sns.color_palette("rocket_r" if metric.direction != "lower" else "rocket", as_cmap=True)
    with canvas(2.9 + 0.72 * values.shape[1], max(3.2, 1.6 + 0.28 * len(values))) as (figure, axes):
        ax = axes[0, 0]
        ax.set_facecolor("#e8e8e8")
        ax.grid(visible=False)
        span, start = _span(plain, values, metric)
        sns.heatmap(values * metric.factor, ax=ax, cmap=colours, annot=text, fmt="", annot_kws={"fontsize": 7.5},
                    linewidths=0.6, **span, cbar_kws={"shrink": min(1.0, 10 / len(values)), "aspect": 14})
        bar = ax.collections[0].colorbar.ax
        bar.set_ylabel(f"{metric.title}\n{words.arrow(metric.direction)}", fontsize=8)
        bar.tick_params(labelsize=8)
        for y, x in zip(*np.nonzero(values.isna().to_numpy())):
            ax.text(x + 0.5, y + 0.5, text[y, x], ha="center", va="center", fontsize=7.5, color="#333333")
        ax.axhline(1, color="#222222", linewidth=1.4)
        ax.xaxis.tick_top()
        ax.set_xticks(np.arange(values.shape[1]) + 0.5, values.columns, rotation=40, ha="left", fontsize=8)
        ax.set_yticks(np.arange(len(values)) + 0.5, values.index, rotation=0, fontsize=8)
        ax.set(xlabel="", ylabel="")
        save(figure, folder / f"heat-{scenario}.png")
    marks = "; ".join(f"{words.words()['status'][s]['mark']} {words.label('status', s)}"
                      for s in ("denied", "budget", "unavailable", "failed", "missing"))
    caption = (f"{metric.title} on {scenario}: every attack (columns) against every defense and strength (rows), the "
               "worse of an attacker that ignores and one that knows the defense († knows it). Dark leaks more"
               f"{start}. – the defense cannot act on this attack (same value as without defense); {marks}; grey "
               "without a letter: not run.")
    return Picture(folder / f"heat-{scenario}.png", caption, scenario, "heat")


def tradeoff(attacks: pd.DataFrame, defenses: pd.DataFrame, scenario: str, folder: Path) -> Picture | None:
    """Leakage to the strongest attack of each level against utility; strengths of one defense are joined."""
    rows = headline_rows(defenses, scenario)
    rows = rows[(rows["attack"] == STRONGEST) & rows["utility"].notna() & (rows["inert"] != "inert")]
    if rows.empty:
        return None
    levels = sorted(set(rows["level"]))
    style = cues(set(rows["defense"]))
    columns = min(2, len(levels))
    lines = math.ceil(len(levels) / columns)
    side = 5.2 if len(levels) == 1 else 4.2
    with canvas(2.1 + side * columns, side * lines, lines, columns) as (figure, axes):
        for ax, level in itertools.zip_longest(axes.flat, levels):
            if level is None:
                ax.set_visible(False)
            else:
                _scatter(ax, rows[rows["level"] == level], headline_rows(attacks, scenario), style)
                ax.set_title(words.label("levels", level))
        figure.legend(*unique(axes), loc="outside right upper", fontsize=8)
        save(figure, folder / f"tradeoff-{scenario}.png")
    metric = quantity(rows)
    caption = (f"What defenses on {scenario} cost and what they stop: {utility(rows).label} against {metric.title} "
               "of the strongest attack. Numbers beside markers are strengths; bars are 95 % intervals (leakage) and "
               "the range over targets (utility); dashed lines are controls. The grey line joins the settings that no "
               "other one beats in both (Pareto front).")
    return Picture(folder / f"tradeoff-{scenario}.png", caption, scenario, "tradeoff")


def each(defenses: pd.DataFrame, scenario: str, folder: Path, least: int = 6) -> Picture | None:
    """One small panel per defense, the others grey behind it: readable where there are many.

    Shows the access level with most defenses; None where there are fewer than `least` defenses.
    """
    rows = headline_rows(defenses, scenario)
    rows = rows[(rows["attack"] == STRONGEST) & rows["utility"].notna() & (rows["inert"] != "inert")]
    if rows.empty:
        return None
    level = rows.groupby("level")["defense"].nunique().idxmax()
    rows = rows[rows["level"] == level]
    names = sorted(set(rows["defense"]))
    if len(names) < least:
        return None
    metric, use, columns = quantity(rows), utility(rows), 4
    lines = math.ceil(len(names) / columns)
    with canvas(9.4, 0.6 + 1.75 * lines, lines, columns, sharex=True, sharey=True) as (figure, axes):
        for ax, name in itertools.zip_longest(axes.flat, names):
            if name is None:
                ax.set_visible(False)
                continue
            ax.scatter(rows["utility"] * use.factor, rows["mean"] * metric.factor, s=8, color="#cccccc")
            line = rows[rows["defense"] == name].sort_values("strength")
            x, y = line["utility"] * use.factor, line["mean"] * metric.factor
            ax.errorbar(x, y, yerr=_errors(line, "mean", "low", "high", metric.factor), color=COLOURS[0],
                        marker="o", markersize=4, linewidth=1.2)
            for place in zip(line["strength"], x, y):
                ax.annotate(f"{place[0]:g}", place[1:], (4, 3), textcoords="offset points", fontsize=7)
            ax.set_title(words.method("defense", name), fontsize=8)
            ax.tick_params(labelsize=7)
        figure.supxlabel(f"{use.title}; " + ("higher" if use.direction != "lower" else "lower") + " is better",
                         fontsize=9)
        figure.supylabel(f"{metric.title}; {words.arrow(metric.direction)}", fontsize=9)
        save(figure, folder / f"each-{scenario}.png")
    caption = (f"One panel per defense on {scenario}: {use.label} against {metric.title} of the strongest attack "
               f"({words.label('levels', level)}); numbers are strengths, grey points all other settings.")
    return Picture(folder / f"each-{scenario}.png", caption, scenario, "each")


def utility(rows: pd.DataFrame) -> Quantity:
    """The utility that these rows show."""
    return words.metric(rows.iloc[0]["utility_name"], kind="utility")


def front(points: pd.DataFrame, higher_leaks: bool, higher_useful: bool = True) -> pd.DataFrame:
    """Rows that no other row beats in `mean` (leakage) and `utility` together, by falling utility.

    >>> points = pd.DataFrame({"mean": [20.0, 15.0, 16.0], "utility": [0.9, 0.8, 0.7]})
    >>> front(points, higher_leaks=True)["utility"].tolist()
    [0.9, 0.8]
    """
    leak = points["mean"] if higher_leaks else -points["mean"]
    use = points["utility"] if higher_useful else -points["utility"]
    order = points.assign(leak=leak, use=use).sort_values(["use", "leak"], ascending=[False, True])
    best = order["leak"].cummin()
    return order[(order["leak"] == best) & ~best.duplicated()]


def _grid(plain: pd.DataFrame, rows: pd.DataFrame, metric: Quantity) -> tuple[pd.DataFrame, np.ndarray]:
    """Values and what is written in the cells, rows by defense and strength, columns by attack method."""
    direction = metric.direction
    attackers = plain[["method", "level", "mean", "kind", "status"]].sort_values("mean", ascending=direction == "lower")
    attackers = attackers.assign(method=attackers["method"].map(collect.attacker)).drop_duplicates(["method", "level"])
    attackers = attackers.sort_values("kind", kind="stable")
    shared = attackers["method"].duplicated(keep=False)
    columns = {(a.method, a.level): words.method("attack", a.method) + (f"\n{a.level}" if s else "")
               for a, s in zip(attackers.itertuples(), shared)}
    places = sorted(set(zip(rows["defense"], rows["strength"])))
    names = ["no defense", *(f"{words.method('defense', d)} {s:g}" for d, s in places)]
    values = pd.DataFrame(np.nan, index=names, columns=list(columns.values()))
    text = np.full(values.shape, "", dtype=object)
    index = {key: x for x, key in enumerate(columns)}
    for row in attackers.itertuples():
        _fill(values, text, 0, index[row.method, row.level], row.mean, _written(row, metric))
    lines = {place: y + 1 for y, place in enumerate(places)}
    for row in rows.itertuples():
        if (row.method, row.level) in index:
            place = lines[row.defense, row.strength], index[row.method, row.level]
            _fill(values, text, *place, row.mean, _written(row, metric))
    return values, text


def _span(plain: pd.DataFrame, values: pd.DataFrame, metric: Quantity) -> tuple[dict[str, float], str]:
    """Ends of the colour scale, which begins at what the best guess reaches; and that in words."""
    guess = end(plain, "guess", metric.direction)
    if guess is None:
        return {}, ""
    start, least = guess[1] * metric.factor, 10 * metric.step
    most = values.stack().max() if metric.direction == "higher" else values.stack().min()
    reached = most * metric.factor
    ends = {"vmin": start, "vmax": max(reached, start + least)} if metric.direction == "higher" else {
        "vmin": min(reached, start - least), "vmax": start}
    label = words.label("controls", guess[0])
    return ends, f", the lightest is what guessing reaches ({label} {metric.show(guess[1])})"


def _fill(values: pd.DataFrame, text: np.ndarray, y: int, x: int, value: float, written: str) -> None:
    values.iat[y, x] = value
    text[y, x] = written


def _written(row: Any, metric: Quantity) -> str:
    """What stands in a cell of the heat map."""
    if math.isnan(row.mean):
        return words.words()["status"].get(row.status, {}).get("mark", "")
    verdict = getattr(row, "inert", "")
    if verdict:
        mark = words.words()["status"][verdict]["mark"]
        return mark if verdict == "inert" else f"{mark} {metric.show(row.mean)}"
    return metric.show(row.mean) + ("†" if getattr(row, "worse", "") == "aware" else "")


def _scatter(ax: Any, rows: pd.DataFrame, plain: pd.DataFrame, style: dict[str, tuple[str, Any]]) -> None:
    metric, use = quantity(rows), utility(rows)
    for defense, line in rows.sort_values("strength").groupby("defense"):
        marker, colour = style[defense]
        x, y = line["utility"] * use.factor, line["mean"] * metric.factor
        ax.plot(x, y, color=colour, linewidth=0.9, alpha=0.6)
        ax.errorbar(x, y, xerr=_errors(line, "utility", "utility_min", "utility_max", use.factor),
                    yerr=_errors(line, "mean", "low", "high", metric.factor), fmt="none", ecolor=colour,
                    elinewidth=0.9, alpha=0.7)
        sizes = np.linspace(26, 90, len(line)) if len(line) > 1 else [50]
        ax.scatter(x, y, s=sizes, marker=marker, color=colour, edgecolor="white", linewidth=0.6, zorder=3,
                   label=words.method("defense", defense))
        for place in zip(line["strength"], x, y):
            ax.annotate(f"{place[0]:g}", place[1:], (5, 4), textcoords="offset points", fontsize=7, color=colour)
    base = rows[["utility_undefended", "undefended"]].dropna().iloc[:1]
    base = base.set_axis(["utility", "mean"], axis=1)
    if len(base):
        ax.scatter(base["utility"] * use.factor, base["mean"] * metric.factor, s=150, marker="*", color="#111111",
                   zorder=4, label="no defense")
    best = front(pd.concat([rows[["mean", "utility"]], base]), metric.direction == "higher", use.direction != "lower")
    ax.plot(best["utility"] * use.factor, best["mean"] * metric.factor, color="#111111", linewidth=2.2, alpha=0.25,
            zorder=1, label="Pareto front", drawstyle="steps-post")
    ax.margins(0.08)
    roomy(ax, use.step, metric.step)
    control_lines(ax, plain, metric, side="left")
    ax.set_xlabel(f"{use.title}; " + ("higher is better" if use.direction != "lower" else "lower is better"))
    ax.set_ylabel(f"{metric.title}; {words.arrow(metric.direction)}")


def _errors(rows: pd.DataFrame, value: str, low: str, high: str, factor: float) -> np.ndarray:
    """(2, n) distances to both ends; 0 where there is no interval."""
    below, above = rows[value] - rows[low], rows[high] - rows[value]
    return np.nan_to_num(np.array([below, above], dtype=float)).clip(min=0) * factor
