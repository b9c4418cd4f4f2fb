"""Figures of defenses: leakage against what it costs to prevent it, in utility or bytes, with the Pareto front."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inversionbench.survey import words
from inversionbench.survey.defended import STRONGEST
from inversionbench.survey.figures import (
    COLOURS,
    Picture,
    canvas,
    control_lines,
    cues,
    headline_rows,
    plain_log,
    quantity,
    roomy,
    save,
)
from inversionbench.survey.words import Quantity


@dataclass(frozen=True)
class Price:
    """What a defense costs: the columns of the table that hold it, its ends and its undefended value."""

    quantity: Quantity
    column: str = "utility"
    low: str = "utility_low"
    high: str = "utility_high"
    before: str = "utility_undefended"
    log: bool = False

    @property
    def title(self) -> str:
        return f"{self.quantity.title}; {'lower' if self.quantity.direction == 'lower' else 'higher'} is better"


def tradeoff(attacks: pd.DataFrame, defenses: pd.DataFrame, scenario: str, folder: Path) -> Picture | None:
    """Leakage to the strongest attack of each level against utility; strengths of one defense are joined."""
    rows = judged(defenses, scenario)
    rows = rows[rows["utility"].notna()]
    if rows.empty:
        return None
    metric, use = quantity(rows), utility(rows)
    _panels(rows, headline_rows(attacks, scenario), Price(use), folder / f"tradeoff-{scenario}.png")
    caption = (f"What defenses on {scenario} cost and what they stop: {use.label} against {metric.title} of the "
               "strongest attack. Numbers are strengths; bars are 95 % intervals; dashed lines are controls. The grey "
               "line joins the settings that no other one beats in both (Pareto front).")
    return Picture(folder / f"tradeoff-{scenario}.png", caption, scenario, "tradeoff")


def traffic(
    frame: pd.DataFrame, attacks: pd.DataFrame, defenses: pd.DataFrame, scenario: str, folder: Path
) -> Picture | None:
    """Leakage to the strongest attack against the bytes of a client's round, where some defense changes them."""
    rows, sent = judged(defenses, scenario), _traffic(frame, scenario)
    if rows.empty or sent is None:
        return None
    rows = rows.merge(sent.drop(index="none", level="defense").reset_index())
    before = sent["bytes"].xs("none", level="defense").mean()
    if rows.empty or np.allclose(rows["bytes"], before, rtol=0.01):
        return None
    rows = rows.assign(bytes_before=before)
    price = Price(words.metric("traffic", kind="utility"), "bytes", "bytes_min", "bytes_max", "bytes_before", True)
    metric = quantity(rows)
    _panels(rows, headline_rows(attacks, scenario), price, folder / f"traffic-{scenario}.png")
    caption = (f"Bytes against leakage on {scenario}: what a client sends and receives in a round, and {metric.title} "
               "of the strongest attack. Numbers are strengths; bars are 95 % intervals; dashed lines "
               "are controls. The grey line joins the settings that no other one beats in both.")
    return Picture(folder / f"traffic-{scenario}.png", caption, scenario, "traffic")


def judged(defenses: pd.DataFrame, scenario: str) -> pd.DataFrame:
    """Every setting of a defense that acts, against the strongest attack of each level."""
    rows = headline_rows(defenses, scenario)
    return rows[(rows["attack"] == STRONGEST) & (rows["inert"] != "inert")]


def _traffic(frame: pd.DataFrame, scenario: str) -> pd.DataFrame | None:
    """(defense, strength) -> bytes, bytes_min, bytes_max over targets, up and down; None where it is not known."""
    columns = [c for c in ("utility_bytes_up", "utility_bytes_down") if c in frame]
    cells = frame[(frame["scenario"] == scenario) & ~frame["inert"]].drop_duplicates("key")
    if "utility_bytes_up" not in columns or cells["utility_bytes_up"].isna().all():
        return None
    known = cells.dropna(subset=["utility_bytes_up"])
    groups = known.assign(bytes=known[columns].fillna(0).sum(axis=1)).groupby(["defense", "strength"])["bytes"]
    if "none" not in set(known["defense"]):
        return None
    return groups.agg(bytes="mean", bytes_min="min", bytes_max="max")


def _panels(rows: pd.DataFrame, plain: pd.DataFrame, price: Price, path: Path) -> None:
    """One panel for each access level: the price of a setting against its leakage."""
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
                _scatter(ax, rows[rows["level"] == level], plain, price, style)
                ax.set_title(words.label("levels", level))
        save(figure, path, axes)


def each(defenses: pd.DataFrame, scenario: str, folder: Path, least: int = 6) -> Picture | None:
    """One small panel per defense, the others grey behind it: readable where there are many.

    Shows the access level with most defenses; None where there are fewer than `least` defenses.
    """
    rows = judged(defenses, scenario)
    rows = rows[rows["utility"].notna()]
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


def front(
    points: pd.DataFrame, higher_leaks: bool, higher_useful: bool = True, column: str = "utility"
) -> pd.DataFrame:
    """Rows that no other row beats in `mean` (leakage) and in what is in `column` together, the most useful first.

    >>> points = pd.DataFrame({"mean": [20.0, 15.0, 16.0], "utility": [0.9, 0.8, 0.7]})
    >>> front(points, higher_leaks=True)["utility"].tolist()
    [0.9, 0.8]
    """
    leak = points["mean"] if higher_leaks else -points["mean"]
    use = points[column] if higher_useful else -points[column]
    order = points.assign(leak=leak, use=use).sort_values(["use", "leak"], ascending=[False, True])
    best = order["leak"].cummin()
    return order[(order["leak"] == best) & ~best.duplicated()]


def _scatter(ax: Any, rows: pd.DataFrame, plain: pd.DataFrame, price: Price, style: dict[str, Any]) -> None:
    metric, use = quantity(rows), price.quantity
    for defense, line in rows.sort_values("strength").groupby("defense"):
        marker, colour = style[defense]
        x, y = line[price.column] * use.factor, line["mean"] * metric.factor
        ax.plot(x, y, color=colour, linewidth=0.9, alpha=0.6)
        ax.errorbar(x, y, xerr=_errors(line, price.column, price.low, price.high, use.factor),
                    yerr=_errors(line, "mean", "low", "high", metric.factor), fmt="none", ecolor=colour,
                    elinewidth=0.9, alpha=0.7)
        sizes = np.linspace(26, 90, len(line)) if len(line) > 1 else [50]
        alone = f" {line['strength'].iloc[0]:g}" if len(line) == 1 else ""  # else the numbers stand at the markers
        ax.scatter(x, y, s=sizes, marker=marker, color=colour, edgecolor="white", linewidth=0.6, zorder=3,
                   label=words.method("defense", defense) + alone)
        for place in zip(line["strength"], x, y) if len(line) > 1 else ():
            ax.annotate(f"{place[0]:g}", place[1:], (5, 4), textcoords="offset points", fontsize=7, color=colour)
    base = undefended(plain, rows, price)
    if len(base):
        ax.errorbar(base[price.column] * use.factor, base["mean"] * metric.factor,
                    yerr=_errors(base, "mean", "low", "high", metric.factor), fmt="none", color="#111111",
                    elinewidth=1.1, capsize=2.5, zorder=4)
        ax.scatter(base[price.column] * use.factor, base["mean"] * metric.factor, s=150, marker="*", color="#111111",
                   zorder=4, label="no defense")
    best = front(pd.concat([rows[["mean", price.column]], base]), metric.direction == "higher",
                 use.direction != "lower", price.column)
    join(ax, best[price.column] * use.factor, best["mean"] * metric.factor)
    ax.margins(0.1)
    if price.log:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    roomy(ax, 0.0 if price.log else use.step, metric.step)
    control_lines(ax, plain, metric)
    ax.set_xlabel(price.title)
    ax.set_ylabel(f"{metric.title}; {words.arrow(metric.direction)}")


def undefended(plain: pd.DataFrame, rows: pd.DataFrame, price: Price) -> pd.DataFrame:
    """The strongest attack without defense at the access level of `rows`, as the table of attacks shows it (mean, low,
    high), at the undefended price; empty without one."""
    before, metric = rows[price.before].dropna(), quantity(rows)
    real = plain[(plain["kind"] == "attack") & plain["level"].isin(set(rows["level"])) & plain["mean"].notna()]
    real = real.sort_values("mean", ascending=metric.direction == "lower")[["mean", "low", "high"]]
    return real.iloc[: min(1, len(before))].assign(**{price.column: before.mean()})


def join(ax: Any, x: pd.Series, y: pd.Series) -> None:
    """The Pareto front through these points, where it is a line."""
    if len(x) > 1:
        ax.plot(x, y, color="#111111", linewidth=2.2, alpha=0.25, zorder=1, label="Pareto front",
                drawstyle="steps-post")


def _errors(rows: pd.DataFrame, value: str, low: str, high: str, factor: float) -> np.ndarray:
    """(2, n) distances to both ends; 0 where there is no interval."""
    below, above = rows[value] - rows[low], rows[high] - rows[value]
    return np.nan_to_num(np.array([below, above], dtype=float)).clip(min=0) * factor
