"""Figures that set two things against each other: an attacker who ignores a defense and one who knows it, and all
defenses of a track at once."""

from __future__ import annotations

from collections.abc import Iterable
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
    end,
    headline_rows,
    quantity,
    roomy,
    save,
)
from inversionbench.survey.maps import front, join, judged

SIDES = (("naive", "ignores the defense", "o", "white"), ("aware", "knows the defense", "D", COLOURS[3]))


def knowing(attacks: pd.DataFrame, defenses: pd.DataFrame, scenario: str, folder: Path) -> Picture | None:
    """Naive against adaptive leakage: for each setting the best attacker who ignores it and the best who knows it.

    Only settings that both kinds have attacked; None where there are none.
    """
    rows = headline_rows(defenses, scenario)
    rows = rows[(rows["attack"] != STRONGEST) & (rows["kind"] == "attack")]
    if rows.empty:
        return None
    metric = quantity(rows)
    pairs = []
    for (defense, strength), part in rows.groupby(["defense", "strength"]):
        chosen = [_most(part, side, metric.direction) for side, *_ in SIDES]
        if all(row is not None for row in chosen):
            pairs.append((f"{words.method('defense', defense)} {strength:g}", chosen))
    if not pairs:
        return None
    with canvas(8.2, 1.6 + 0.32 * len(pairs)) as (figure, axes):
        ax = axes[0, 0]
        for y, (_, chosen) in enumerate(pairs):
            at = [row[f"{side}_mean"] * metric.factor for row, (side, *_) in zip(chosen, SIDES)]
            ax.plot(at, [y, y], color="#999999", linewidth=2, zorder=1)
            for row, (side, label, marker, face) in zip(chosen, SIDES):
                low, mean, high = (row[f"{side}_{name}"] * metric.factor for name in ("low", "mean", "high"))
                ax.errorbar(mean, y, xerr=np.nan_to_num([[mean - low], [high - mean]]), color="#444444", capsize=2,
                            linewidth=0.9, zorder=2)
                ax.scatter(mean, y, marker=marker, s=46, facecolor=face, edgecolor="#222222", zorder=3, label=label)
        ax.set_yticks(range(len(pairs)), [name for name, _ in pairs])
        ax.set_ylim(len(pairs) - 0.4, -0.6)
        ax.set_xlabel(f"{metric.title}; {words.arrow(metric.direction)}")
        roomy(ax, x=metric.step)
        control_lines(ax, headline_rows(attacks, scenario), metric, vertical=True)
        save(figure, folder / f"knowing-{scenario}.png", axes)
    caption = (f"What it helps an attacker on {scenario} to know the defense: {metric.title} of the best attack that "
               "ignores it and of the best that knows it, with 95 % intervals; dashed lines are controls. A defense is "
               "judged by the worse of the two.")
    return Picture(folder / f"knowing-{scenario}.png", caption, scenario, "knowing")


def overview(
    attacks: pd.DataFrame, defenses: pd.DataFrame, track: str, scenarios: Iterable[str], folder: Path
) -> Picture | None:
    """Every defense of a track, averaged over its scenarios and access levels: the share of the leak that it leaves,
    against its price. None where no defense stands against a leak in two scenarios."""
    shares = [part for scenario in scenarios if len(part := _shares(attacks, defenses, scenario))]
    if len(shares) < 2:
        return None
    points = pd.concat(shares).groupby(["defense", "strength"], as_index=False).agg(
        mean=("share", "mean"), price=("price", "mean"), scenarios=("scenario", "nunique"))
    if points["scenarios"].max() < 2:
        return None
    style = cues(set(points["defense"]))
    with canvas(7.6, 4.8) as (figure, axes):
        ax = axes[0, 0]
        for defense, line in points.groupby("defense"):
            marker, colour = style[defense]
            ax.plot(line["price"], line["mean"], color=colour, marker=marker, linewidth=0.9,
                    label=words.method("defense", defense))
            for row in line.itertuples():
                several = f" ({row.scenarios})" if row.scenarios < len(shares) else ""
                ax.annotate(f"{row.strength:g}{several}", (row.price, row.mean), (5, 4), textcoords="offset points",
                            fontsize=7, color=colour)
        best = front(pd.concat([points, pd.DataFrame([{"mean": 100.0, "price": 0.0}])]), True, False, "price")
        ax.scatter(0, 100, s=150, marker="*", color="#111111", zorder=4, label="no defense")
        join(ax, best["price"], best["mean"])
        ax.axhline(0, color="#6b6b6b", linestyle="--", linewidth=1)
        ax.set_xlabel("utility lost (points); lower is better")
        ax.set_ylabel("share of the leak that is left (%)")
        roomy(ax, 0.1, 1.0)
        save(figure, folder / f"overview-{track}.png", axes)
    caption = (f"All defenses of this track over {len(shares)} scenarios. 100 % is what the strongest attack gains "
               "over the best guess without defense, 0 % (dashed) is what guessing reaches. Means over scenarios and "
               "access levels; numbers are strengths, in brackets in how many scenarios where not in all. The grey "
               "line joins the settings that no other one beats in both (Pareto front).")
    return Picture(folder / f"overview-{track}.png", caption, track, "overview")


def _shares(attacks: pd.DataFrame, defenses: pd.DataFrame, scenario: str) -> pd.DataFrame:
    """share of the leak beyond the best guess (%) and price (points of utility) of each setting of a scenario; empty
    where there is no leak to begin with, or utility is no share."""
    rows, plain = judged(defenses, scenario), headline_rows(attacks, scenario)
    rows = rows[rows["mean"].notna() & rows["utility_difference"].notna()]
    if rows.empty or words.metric(rows.iloc[0]["utility_name"], kind="utility").direction != "higher":
        return pd.DataFrame()
    metric = quantity(rows)
    guess = end(plain, "guess", metric.direction)
    if guess is None:
        return pd.DataFrame()
    rows = rows[[words.better(u, guess[1], metric.direction) for u in rows["undefended"]]]
    share = 100 * (rows["mean"] - guess[1]) / (rows["undefended"] - guess[1])
    return rows[["scenario", "defense", "strength"]].assign(share=share, price=-100 * rows["utility_difference"])


def _most(part: pd.DataFrame, side: str, direction: str) -> Any:
    """The row whose attacker of this side leaks most; None without one."""
    known = part[part[f"{side}_mean"].notna()].sort_values(f"{side}_mean", ascending=direction == "lower")
    return None if known.empty else known.iloc[0]
