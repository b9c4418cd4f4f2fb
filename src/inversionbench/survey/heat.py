"""The heat map of attacks against defenses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns

from inversionbench.survey import collect, words
from inversionbench.survey.defended import STRONGEST
from inversionbench.survey.figures import Picture, canvas, end, headline_rows, quantity, save
from inversionbench.survey.words import Quantity


def draw(attacks: pd.DataFrame, defenses: pd.DataFrame, scenario: str, folder: Path) -> Picture | None:
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
               "worse of an attacker that ignores and one that knows the defense († knows it); of several entries of a "
               "method the one that leaks most. Dark leaks more"
               f"{start}. – the defense cannot act on this attack (same value as without defense); {marks}; grey "
               "without a letter: not run.")
    return Picture(folder / f"heat-{scenario}.png", caption, scenario, "heat")


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
