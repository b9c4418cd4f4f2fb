"""The report's first table: per scenario and access level the strongest attack, what it shows beyond guessing, and
the best defense for little utility."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from inversionbench.survey import words
from inversionbench.survey.defended import STRONGEST
from inversionbench.survey.figures import end, headline_rows
from inversionbench.survey.view import Cell, Table
from inversionbench.survey.words import Quantity

PRICES = (2, 5)  # points of utility that a defense may cost


def table(
    attacks: pd.DataFrame, defenses: pd.DataFrame, settings: Mapping[str, str] | None = None,
    unanswered: Mapping[tuple[str, str], list[str]] | None = None,
) -> Table:
    """One line per scenario and access level with an answered attack, by track.

    settings: what each scenario is, in a few words; unanswered: names of planned attacks without a record.
    """
    settings = settings or {}
    prices = () if defenses.empty else PRICES
    head = [("scenario", ""), ("access", ""), ("strongest attack", "without defense"),
            ("above guessing", "the best guess without the target"), ("ceiling", "the private data itself"),
            *((f"best defense for ≤ {p} points", f"least leakage that costs at most {p} points of utility")
              for p in prices)]
    real = attacks[attacks["headline"].astype(bool) & (attacks["kind"] == "attack") & attacks["mean"].notna()]
    order = sorted(real.groupby(["track", "scenario", "level"]),
                   key=lambda g: (words.place(g[0][0]), g[0][0], words.natural(g[0][1]), g[0][2]))
    rows: list[tuple[str, list[Cell]]] = []
    for (track, scenario, level), part in order:
        metric = words.metric(part.iloc[0]["metric"], track)
        best = part.sort_values("mean", ascending=metric.direction == "lower").iloc[0]
        name = words.method("attack", best["attack"], best["method"])
        gone = missing(attacks, scenario, level, unanswered or {})
        top = end(part, "ceiling", metric.direction)
        rows.append(("", [
            Cell(scenario, settings.get(scenario, "")), Cell(words.label("levels", level)),
            Cell(f"{name}: {metric.show(best['mean'])} {metric.unit}".strip() + (f" ({gone})" if gone else ""),
                 metric.span(best["low"], best["high"]), style="alarm" if gone else ""),
            _above(best, part, metric, gone),
            Cell(metric.show(top[1]), words.label("controls", top[0])) if top else Cell(),
            *(_best(defenses, best, metric, points) for points in prices),
        ]))
    return Table("Strongest attack and best defense", head, rows)


def missing(
    attacks: pd.DataFrame, scenario: str, level: str, unanswered: Mapping[tuple[str, str], list[str]]
) -> str:
    """How many of the attacks planned for a scenario and level have no number, and which; "" where all have one."""
    rows = attacks[(attacks["scenario"] == scenario) & (attacks["level"] == level) & attacks["headline"].astype(bool)
                   & (attacks["kind"] == "attack")]
    silent = [words.method("attack", r.attack, r.method) for r in rows[rows["mean"].isna()].itertuples()]
    without = unanswered.get((scenario, level), [])
    names = sorted({*silent, *without})
    return f"{len(names)} of {len(rows) + len(without)} attacks missing: {', '.join(names)}" if names else ""


def _above(best: pd.Series, part: pd.DataFrame, metric: Quantity, gone: str) -> Cell:
    """How far the attack passes the best guess; in words where its interval does not. gone: attacks without a number,
    any of which might pass it."""
    guess = end(part, "guess", metric.direction)
    if guess is None:
        return Cell()
    said = f"{words.label('controls', guess[0])} {metric.show(guess[1])}"
    low = best["low"] if metric.direction == "higher" else best["high"]
    if not words.better(best["mean"] if math.isnan(low) else low, guess[1], metric.direction):
        return Cell("not known" if gone else "no leak shown", said, style="absent")
    return Cell(f"{metric.show(best['mean'] - guess[1], True)} {metric.unit}".strip(), said)


def _best(defenses: pd.DataFrame, best: pd.Series, metric: Quantity, points: int) -> Cell:
    """The setting with least leakage to the strongest attack among those that lower it at all and cost at most
    `points` of 100; says so where `best`, the strongest attack without defense, was not run against it."""
    rows = headline_rows(defenses, best["scenario"])
    rows = rows[(rows["attack"] == STRONGEST) & (rows["level"] == best["level"]) & rows["mean"].notna()]
    use = words.metric(rows.iloc[0]["utility_name"], kind="utility") if len(rows) else Quantity("", "")
    if use.direction != "higher":
        return Cell()
    rows = rows[[words.better(u, m, metric.direction) for u, m in zip(rows["undefended"], rows["mean"])]]
    rows = rows[rows["utility_difference"].round(9) >= -points / 100]
    if rows.empty:
        return Cell("none", style="absent")
    row = rows.sort_values("mean", ascending=metric.direction != "lower").iloc[0]
    untried = words.better(best["mean"], row["undefended"], metric.direction)
    without = f" ({words.method('attack', best['attack'], best['method'])} not run)" if untried else ""
    text = (f"{words.method('defense', row['defense'])} {row['strength']:g}{without}: {metric.show(row['mean'])} "
            f"{metric.unit}")
    price = f"{use.label} {use.show(row['utility_difference'], True)} {use.unit}"
    return Cell(text.strip(), metric.span(row["low"], row["high"]), note=price)
