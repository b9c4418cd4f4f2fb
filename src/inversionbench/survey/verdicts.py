"""What the numbers support: whether a defense lowers leakage, an attack passes guessing, one attack beats another.

A verdict needs a difference whose interval excludes 0. The interval is of the level 1 - 0.05 / m, where m is the number
of comparisons behind the claim (Bonferroni): for a defense all settings (defense and strength) tried at the access
level; above guessing, all attacks of the level; for the strongest attack, all others. A verdict on a defense moreover
needs `UNITS` targets, attacked models of `MODELS` seeds, the strongest undefended attack among those run against it,
and a defense that did what its class declares (`effect`).

A defense that only processes what the attacker sees (`post_processing`) can be applied to an undefended target by
anybody: its cells are undefended ones of the same attacker, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from inversionbench.core import catalogue, registry
from inversionbench.core.defense import acted as moved
from inversionbench.metrics._aggregate import LEVEL
from inversionbench.survey.pool import Pooled, Row, difference, pool

UNITS, MODELS = 8, 2
COMPARED = ("guess", "above", "above_low", "above_high", "tied")
LOWERS, RAISES, UNCLEAR, FEW, UNRUN, IDLE, INERT = (
    "lowers", "raises", "not_shown", "too_few", "not_run", "did_not_act", "inert")


def corrected(comparisons: int) -> float:
    """The level of each interval, so that all of them hold with `LEVEL`."""
    return 1 - (1 - LEVEL) / max(1, comparisons)


def post_processing(defense: str) -> bool:
    """Whether this entry of `defenses:` only processes what the attacker sees."""
    return bool(_declared(defense).get("post_processing"))


def acted(defense: str, here: Sequence[Row], plain: Sequence[Row]) -> bool:
    """False where the defended targets lack the effect that the class declares (`core.defense.acted`); True where
    nothing is declared or was measured."""
    effect = _declared(defense).get("effect")
    name = effect[0] if effect else ""
    means = [_mean([r.get(f"utility_{name}", math.nan) for r in rows]) for rows in (here, plain)]
    own, before = ({} if math.isnan(mean) else {name: mean} for mean in means)
    return moved(effect, own, before) is not False


def judge(lines: list[dict[str, Any]], plain: Sequence[Row], strongest: str) -> None:
    """Give `verdict` and `alarm` to the lines of one scenario and metric; `plain`: its undefended rows.

    verdict: of the lines whose attack is `strongest`. alarm: a post-processing that leaks more than the plain attack.
    """
    for level in {line["level"] for line in lines}:
        here = [line for line in lines if line["level"] == level]
        judged = [line for line in here if line["attack"] == strongest]
        settings = sum(line["inert"] != "inert" for line in judged)
        best = _strongest([r for r in plain if r["level"] == level and r["kind"] == "attack"])
        for line in here:
            same = [o for o in here if (o["defense"], o["strength"]) == (line["defense"], line["strength"])]
            met = {o["method"] for o in same if o["attack"] != strongest and not math.isnan(o["mean"])}
            if line["attack"] == strongest:
                line["verdict"] = _verdict(line, settings * line["references"], best in met)
            elif line["own"] and line["kind"] == "attack":
                change = difference(line["rows"], line["plain"], corrected(settings))
                line["alarm"] = change.sign() == _more(line) != 0 and change.units >= UNITS


def _verdict(line: Mapping[str, Any], comparisons: int, met: bool) -> str:
    if line["inert"] == "inert":
        return INERT
    if not line["acted"]:
        return IDLE
    if not met:
        return UNRUN
    change = difference(line["rows"], line["reference_rows"], corrected(comparisons))
    if change.units < UNITS or change.targets < MODELS or math.isnan(change.low):
        return FEW
    return {1: RAISES, -1: LOWERS}.get(change.sign() * _more(line), UNCLEAR)


def compare(rows: Mapping[str, Sequence[Row]], guess: str) -> dict[str, dict[str, Any]]:
    """For each attack of one scenario, level and metric: how far it passes the best guess (the control `guess`, "" for
    none), and the attacks from which the strongest one cannot be told apart.

    The guess is taken off every value within its own cell, so that what differs between seeds drops out.
    """
    direction = next(iter(rows.values()))[0]["direction"]
    means = {name: pool(part).mean for name, part in rows.items()}
    known = [name for name, mean in means.items() if not math.isnan(mean)]
    out: dict[str, dict[str, Any]] = {}
    for name in known:
        over = _above(rows[name], guess, corrected(len(known))) if guess else Pooled()
        out[name] = {"guess": guess, "above": over.mean, "above_low": over.low, "above_high": over.high, "tied": ""}
    if known and direction:
        order = sorted(known, key=lambda n: means[n], reverse=direction == "higher")
        rivals = [(n, difference(rows[order[0]], rows[n], corrected(len(order) - 1))) for n in order[1:]]
        out[order[0]]["tied"] = " ".join(n for n, change in rivals if not change.sign())
    return out


def _above(rows: Sequence[Row], guess: str, level: float) -> Pooled:
    """The values less the control of their own cell."""
    column = f"control_{guess}"
    inside = [r for r in rows if not math.isnan(r.get(column, math.nan))]
    return pool([{**r, "values": [v - r[column] for v in r["values"]], "metric": ""} for r in inside], level)


def _strongest(rows: Sequence[Row]) -> str:
    """The attacker that leaks most."""
    entries: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        entries.setdefault((row["attacker"], row["attack"], row["defense"], row["strength"]), []).append(row)
    means = {place: pool(part).mean for place, part in entries.items()}
    known = [place for place, mean in means.items() if not math.isnan(mean)]
    sign = -1 if rows and rows[0]["direction"] == "lower" else 1
    return max(known, key=lambda place: sign * means[place])[0] if known else ""


def _more(line: Mapping[str, Any]) -> int:
    """The sign of a difference that leaks more."""
    return {"higher": 1, "lower": -1}.get(line["direction"], 0)


def _declared(defense: str) -> Mapping[str, Any]:
    """Class attributes of the method behind an entry of `defenses:`; none of a chain."""
    found = registry.methods("defense").get(catalogue.method_of("defense", defense))
    return found.attributes if found else {}


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if v is not None and not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan

