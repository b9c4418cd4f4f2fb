"""What a run found, in one sentence per track and headline metric: the strongest attack against guessing, and the best
defense that the data support, with its price. It stands on top of the report; the numbers are those of `glance`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from inversionbench.survey import glance, words
from inversionbench.survey.figures import end
from inversionbench.survey.words import Quantity

Leader = tuple[pd.DataFrame, pd.Series, Quantity]  # as `glance.leading` has them
POINTS = max(glance.PRICES)


def sentences(
    attacks: pd.DataFrame, defenses: pd.DataFrame, unanswered: Mapping[tuple[str, str], list[str]] | None = None
) -> list[tuple[str, str]]:
    """(title, sentence) for each track; for each metric of a track where its scenarios have several headlines, which do
    not compare. Arguments as those of `glance.table`."""
    groups: dict[tuple[str, str], list[Leader]] = {}
    for leader in glance.leading(attacks):
        groups.setdefault((leader[1]["track"], leader[2].id), []).append(leader)
    tracks = [track for track, _ in groups]
    return [
        (words.track(track).title + (f", {words.metric(metric, track).label}" if tracks.count(track) > 1 else ""),
         f"{_attack(attacks, defenses, group, unanswered or {})}; {_defense(defenses, group)}.")
        for (track, metric), group in groups.items()
    ]


def _attack(
    attacks: pd.DataFrame, defenses: pd.DataFrame, group: list[Leader], unanswered: Mapping[tuple[str, str], list[str]]
) -> str:
    """The attack that passes the best guess by most, of those whose interval shows that they pass it."""
    doubts, shown = set(), []
    for part, best, metric in group:
        gone = glance.missing(attacks, best["scenario"], best["level"], unanswered)
        cell = glance.above(best, part, metric, gone)
        if cell.style:
            doubts.add(cell.text)
        else:
            shown.append((part, best, metric))
    if not shown:
        return f"{' or '.join(sorted(doubts))} in {len(group)} settings" if len(group) > 1 else doubts.pop()
    part, best, metric = max(shown, key=lambda leader: _lead(*leader[1:]))
    name, mean, _ = glance.undefended(defenses, best, part, metric)
    guess = end(part, "guess", metric.direction)
    against = f", {words.label('controls', guess[0])} {metric.show(guess[1])}" if guess else ""
    return f"{name} reaches {_number(metric, mean)} in {best['scenario']}{against}"


def _lead(best: pd.Series, metric: Quantity) -> tuple[float, float]:
    sign = -1 if metric.direction == "lower" else 1
    return (-math.inf if math.isnan(best["above"]) else sign * best["above"], sign * best["mean"])


def _defense(defenses: pd.DataFrame, group: list[Leader]) -> str:
    """The setting that lowers the strongest attack of its scenario and level by most, of those that are supported."""
    tried = [(best, metric, rows) for _, best, metric in group if len(rows := glance.attacked(defenses, best))]
    if not tried:
        return "no defense was run"
    found = [(best, metric, *good) for best, metric, rows in tried
             if (good := glance.supported(rows, metric, POINTS)) is not None]
    if not found:
        return f"no defense is shown to lower the strongest attack for at most {POINTS} points of utility"
    best, metric, row, price = max(found, key=lambda f: abs(f[2]["undefended"] - f[2]["mean"]))
    return (f"best supported defense: {glance.named(row)} in {best['scenario']}, {metric.show(row['undefended'])} to "
            f"{_number(metric, row['mean'])}, {price}")


def _number(metric: Quantity, value: float) -> str:
    return f"{metric.show(value)} {metric.unit}".rstrip()
