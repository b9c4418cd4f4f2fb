"""The report's first table: per scenario and access level the strongest attack, what it shows beyond guessing, and
the best defense for little utility, as far as the data support it (`verdicts`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from inversionbench.survey import verdicts, words
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
            *((f"best defense for ≤ {p} points",
               f"least leakage among those that lower it and cost, by the upper end of their interval, {p} points")
              for p in prices)]
    rows: list[tuple[str, list[Cell]]] = []
    for part, best, metric in leading(attacks):
        scenario, level = best["scenario"], best["level"]
        name, mean, span = undefended(defenses, best, part, metric)
        gone = missing(attacks, scenario, level, unanswered or {})
        top = end(part, "ceiling", metric.direction)
        rows.append(("", [
            Cell(scenario, settings.get(scenario, "")), Cell(words.label("levels", level)),
            Cell(f"{name}: {metric.show(mean)} {metric.unit}".strip() + (f" ({gone})" if gone else ""), span,
                 style="alarm" if gone else ""),
            above(best, part, metric, gone),
            Cell(metric.show(top[1]), words.label("controls", top[0])) if top else Cell(),
            *(_best(defenses, best, metric, points) for points in prices),
        ]))
    return Table("Strongest attack and best defense", head, rows)


def leading(attacks: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, pd.Series, Quantity]]:
    """Per scenario and access level, by track: the attacks with a number, the strongest of them, and the metric."""
    real = attacks[attacks["headline"].astype(bool) & (attacks["kind"] == "attack") & attacks["mean"].notna()]
    order = sorted(real.groupby(["track", "scenario", "level"]),
                   key=lambda g: (words.place(g[0][0]), g[0][0], words.natural(g[0][1]), g[0][2]))
    for (track, *_), part in order:
        metric = words.metric(part.iloc[0]["metric"], track)
        yield part, part.sort_values("mean", ascending=metric.direction == "lower").iloc[0], metric


def undefended(
    defenses: pd.DataFrame, best: pd.Series, part: pd.DataFrame, metric: Quantity
) -> tuple[str, float, str]:
    """The strongest attack without defense: name, mean, and in small its interval and what it cannot be told from.

    An attack that processes the answers he gets, as some defense does, counts where it leaks more.
    """
    name = words.method("attack", best["attack"], best["method"])
    own = attacked(defenses, best)
    own = own[[not r.endswith("/none/0") and words.better(u, best["mean"], metric.direction)
               for r, u in zip(own["reference"], own["undefended"])]]
    if len(own):
        row = own.sort_values("undefended", ascending=metric.direction == "lower").iloc[0]
        attack, defense, strength = row["reference"].split("/")
        said = f"{words.method('attack', attack)} with {words.method('defense', defense).lower()} {strength} of his own"
        return said, row["undefended"], ""
    known = {r.attack: words.method("attack", r.attack, r.method) for r in part.itertuples()}
    tied = [known[n] for n in str(best["tied"]).split() if n in known]
    others = f" and {len(tied) - 1} more" if len(tied) > 1 else ""
    small = [metric.span(best["low"], best["high"]) or f"n = {best['units']:.0f}",
            f"not separable from {tied[0]}{others}" if tied else ""]
    return name, best["mean"], ", ".join(filter(None, small))


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


def above(best: pd.Series, part: pd.DataFrame, metric: Quantity, gone: str) -> Cell:
    """How far the attack passes the best guess; in words where the interval of that holds 0 or is missing. gone:
    attacks without a number, any of which might pass it."""
    guess = end(part, "guess", metric.direction)
    if guess is None:
        return Cell()
    said = f"{words.label('controls', guess[0])} {metric.show(guess[1])}"
    if math.isnan(best["above_low"]):
        return Cell("too few to say", f"n = {best['units']:.0f}, {said}", style="absent")
    low = best["above_low"] if metric.direction == "higher" else best["above_high"]
    if not words.better(low, 0.0, metric.direction):
        return Cell("not known" if gone else "no leak shown", said, style="absent")
    return Cell(f"{metric.show(best['above'], True)} {metric.unit}".strip(), said)


def attacked(defenses: pd.DataFrame, best: pd.Series) -> pd.DataFrame:
    """The settings that were attacked at the level of `best`, against the strongest attack."""
    rows = headline_rows(defenses, best["scenario"])
    return rows[(rows["attack"] == STRONGEST) & (rows["level"] == best["level"]) & rows["mean"].notna()]


def _best(defenses: pd.DataFrame, best: pd.Series, metric: Quantity, points: int) -> Cell:
    """The setting with least leakage among those that lower the strongest attack and cost at most `points` of 100."""
    rows = attacked(defenses, best)
    if rows.empty:
        return Cell("no defense run", style="absent")
    able = rows[rows["verdict"] == verdicts.LOWERS]
    if able.empty:
        return Cell("none shown", _reasons(rows), style="absent")
    found = supported(rows, metric, points)
    if found is None:
        near = max((row for _, row in able.iterrows()), key=lambda row: _order(row["utility_difference"]))
        return Cell("none at this price", f"{named(near)}: {_price(near, points)[1]}", style="absent")
    row, price = found
    text = f"{named(row)}: {metric.show(row['mean'])} {metric.unit}".rstrip()
    return Cell(f"{text}, {price}", metric.span(row["low"], row["high"]))


def supported(rows: pd.DataFrame, metric: Quantity, points: int) -> tuple[pd.Series, str] | None:
    """Of the settings `rows`, the one with least leakage among those that are shown to lower the strongest attack and
    cost at most `points` of 100, and its price in words."""
    priced = [(row, *_price(row, points)) for _, row in rows[rows["verdict"] == verdicts.LOWERS].iterrows()]
    cheap = [(row, said) for row, said, refused in priced if not refused]
    return min(cheap, key=lambda pair: pair[0]["mean"] * (-1 if metric.direction == "lower" else 1), default=None)


def _reasons(rows: pd.DataFrame) -> str:
    """Why no setting is named, the most frequent reason first."""
    counts = rows["verdict"].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    several = len(counts) > 1
    return ", ".join(words.label("verdicts", v) + (f" ({n})" if several else "") for v, n in counts.items())


def _price(row: Any, points: int) -> tuple[str, str]:
    """The price of a setting in words, and why it is refused: "" where it is at most `points`.

    The upper end of the interval decides: a mean alone settles nothing, and without an interval the price is open.
    """
    use = words.metric(row.utility_name, kind="utility")
    low, high = (getattr(row, f"utility_difference_{side}", math.nan) for side in ("low", "high"))
    if math.isnan(row.utility_difference) or use.direction != "higher":
        return "", "price not measured"
    said = f"{use.label} {use.show(row.utility_difference, True)} {use.span(low, high)}".rstrip()
    if _near_chance(row):
        return said, f"{use.label} near chance"
    if math.isnan(low):
        return said, f"{said}, price without interval"
    return said, "" if round(low, 9) >= -points / 100 else said


def _near_chance(row: Any) -> bool:
    """Whether a target is of little use: less than a tenth of the way from chance (the most frequent class) to 1, or
    less than half as far above chance as without defense."""
    chance = getattr(row, "utility_chance", math.nan)
    return not math.isnan(chance) and (
        row.utility - chance < 0.1 * (1 - chance) or row.utility - chance < 0.5 * (row.utility_undefended - chance))


def named(row: pd.Series) -> str:
    return f"{words.method('defense', row['defense'])} {row['strength']:g}"


def _order(value: float) -> float:
    return -math.inf if math.isnan(value) else value
