"""What one changed thing does: pairs of undefended entries that differ in one parameter, and their difference.

Pairs are derived from records, never listed. Two entries of one method on one scenario make a pair if exactly one
thing differs: a parameter of the attack or of a prior's training. Parameters that only say how the same passes are
spent (`BUDGET`) do not count beside another one, where the passes are equal. Two scenarios make a pair for every
attack that both have, if nothing but the public data differs: the private images are the same.

A difference is paired by seed and attacked target; its 95 % interval is over targets. It is called shown where
that interval excludes 0 and all seeds, two at least, say the same sign: an effect of one seed's target is none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from inversionbench.survey import words
from inversionbench.survey.figures import COLOURS, GREY, Picture, canvas, save
from inversionbench.survey.pool import Row, difference, pool
from inversionbench.survey.view import Cell, Table

if TYPE_CHECKING:
    from inversionbench.survey.build import Survey

BUDGET = frozenset({"attack.iterations", "attack.steps", "attack.restarts", "attack.draws"})
SILENT = frozenset({"attack.keep_at"})  # changes what is kept, not what is found
EQUAL = 0.1  # passes that differ by less are equal
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One thing that differs. before, after: (scenario, entry); old, new: the value of `thing` in each."""

    before: tuple[str, str]
    after: tuple[str, str]
    method: str
    thing: str
    old: Any
    new: Any

    @property
    def said(self) -> str:
        """The change in words."""
        name = self.thing.split(".", 1)[-1].replace(".", ": ").replace("_", " ")
        return f"{name} {_value(self.old)} \N{RIGHTWARDS ARROW} {_value(self.new)}"


def find(records: Sequence[Record], track: str) -> list[Change]:
    """All pairs of undefended, answered attacks of a track that differ in one thing."""
    cells: dict[tuple[str, str], Record] = {}
    for r in records:
        if r["track"] == track and r["defense"] == "none" and r["status"] == "ok" and r["kind"] == "attack":
            cells.setdefault((r["scenario"], r["attack"]), r)
    found = [*_by_parameter(cells), *_by_data(cells)]
    return sorted(found, key=lambda c: (c.method, c.thing, c.before, _order(c.old), c.after))


def _by_parameter(cells: Mapping[tuple[str, str], Record]) -> Iterator[Change]:
    """Pairs within a scenario. Of values that are numbers, neighbours only."""
    changes = []
    for (here, a), (there, b) in itertools.combinations(sorted(cells), 2):
        first, second = cells[here, a], cells[there, b]
        if here != there or first["method"] != second["method"]:
            continue
        thing = one_thing(first, second)
        if thing is None:
            continue
        old, new = (_settings(r).get(thing) for r in (first, second))
        pair = [((here, a), old), ((here, b), new)]
        (before, old), (after, new) = sorted(pair, key=lambda side: _order(side[1]))
        changes.append(Change(before, after, first["method"], thing, old, new))
    for c in changes:
        between = [d for d in changes if d.thing == c.thing and d.before == c.before and d.new != c.new
                   and _number(d.new) and _number(c.old) and c.old < d.new < c.new]  # fmt: skip
        if not between:
            yield c


def _by_data(cells: Mapping[tuple[str, str], Record]) -> Iterator[Change]:
    """The same entry on two scenarios whose private images and settings are equal and whose public data differ."""
    for (here, a), (there, b) in itertools.permutations(sorted(cells), 2):
        first, second = cells[here, a], cells[there, b]
        public = (second["parameters"].get("dataset") or {}).get("public_from")
        private = (second["parameters"].get("dataset") or {}).get("private_from")
        if a != b or public is None or private != first["dataset"]:
            continue
        if _differing(first, second) - SILENT == {"dataset"} and _targets(first) == _targets(second):
            yield Change((here, a), (there, b), first["method"], "data.public data", first["dataset"], public)


def _targets(record: Record) -> list[str]:
    return sorted({str(g) for g in record["groups"]})


def one_thing(a: Record, b: Record) -> str | None:
    """The only setting that differs, or None."""
    things = _differing(a, b) - SILENT
    spent = {t for t in things & BUDGET if _same_form(_settings(a).get(t), _settings(b).get(t))}
    if things - spent and _equal_passes(a, b):
        things -= spent
    return next(iter(things)) if len(things) == 1 else None


def _differing(a: Record, b: Record) -> set[str]:
    """Names of settings that differ; where the attack chose another prior, its training is no second thing."""
    first, second = _settings(a), _settings(b)
    names = {n for n in first.keys() | second.keys() if first.get(n) != second.get(n)}
    return {n for n in names if not (n.startswith("priors.") and "attack.base" in names)}


def _settings(record: Record) -> dict[str, Any]:
    """Flat settings: attack.<parameter>, <prior>.<parameter>, scenario, dataset."""
    given = record["parameters"]
    out: dict[str, Any] = {f"attack.{k}": v for k, v in given.get("attack", {}).items()}
    for role, prior in (given.get("priors") or {}).items():
        out |= {f"priors.{role}.{k}": v for k, v in prior.items() if k != "entry"}
    return {**out, "scenario": given.get("scenario"), "dataset": given.get("dataset")}


def _same_form(old: Any, new: Any) -> bool:
    """Whether two budgets differ in numbers alone: other stages of a search are another search."""
    return len(np.atleast_1d(old)) == len(np.atleast_1d(new))


def _equal_passes(a: Record, b: Record) -> bool:
    m, n = (r["cost"].get("passes", 0) for r in (a, b))
    return abs(m - n) <= EQUAL * max(m, n)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size (switches too: off before on), everything else by name."""
    return (0, float(value), "") if isinstance(value, (bool, int, float)) else (1, 0.0, str(value))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(v) for v in value)
    return f"{value:g}" if _number(value) else str(value).replace("_", " ")


# --- measured ------------------------------------------------------------------------------------------


def measured(survey: Survey) -> dict[str, pd.DataFrame]:
    """By track that compares a second metric, one row per change and metric: both means, the difference with interval,
    by seed, and whether it is shown. Tracks without a change are left out."""
    found = {name: _measured(survey, name) for name, _ in survey.scenarios if words.track(name).compared}
    return {name: rows for name, rows in found.items() if len(rows)}


def _measured(survey: Survey, track: str) -> pd.DataFrame:
    frame = survey.frame[survey.frame["track"] == track]
    metrics = (words.headline(track, set(frame.loc[frame["n"] > 0, "metric"])), words.track(track).compared)
    plain = frame[(frame["defense"] == "none") & frame["metric"].isin(metrics)]
    rows = {key: part.to_dict("records") for key, part in plain.groupby(["scenario", "attack", "metric"])}
    out = []
    for change in find(survey.records, track):
        for metric in metrics:
            before, after = (rows.get((*side, metric), []) for side in (change.before, change.after))
            out.append({
                "scenario": change.after[0], "method": change.method, "before": change.before[1],
                "after": change.after[1], "said": change.said, "metric": metric,
                "mean_before": pool(before).mean, "mean_after": pool(after).mean, **_compared(after, before),
            })  # fmt: skip
    return pd.DataFrame(out)


def _compared(after: Sequence[Row], before: Sequence[Row]) -> dict[str, Any]:
    whole = difference(after, before)
    by_seed = [difference([r], [q]).mean for r in after for q in before if r["seed"] == q["seed"]]
    signs = {np.sign(d) for d in by_seed}
    clear = not math.isnan(whole.low) and (whole.low > 0 or whole.high < 0)
    return {
        "difference": whole.mean, "low": whole.low, "high": whole.high, "pairs": whole.pairs, "by_seed": by_seed,
        "shown": bool(clear and len(by_seed) > 1 and len(signs) == 1),
    }  # fmt: skip


def table(rows: pd.DataFrame, track: str) -> Table:
    """All changes of a track, the headline and the compared metric side by side."""
    metrics = list(rows["metric"].unique())
    out = []
    for _, part in rows.groupby(["method", "scenario", "before", "after", "said"], sort=False):
        sides = {r.metric: r for r in part.itertuples()}
        row = sides[metrics[0]]
        place = f"{row.before} against {row.after} on {row.scenario}"
        cells = [Cell(_name((row.method, row.scenario, row.before)), note=place), Cell(row.said)]
        for metric in metrics:
            cells += _cells(sides[metric], words.metric(metric, track))
        out.append(("", cells))
    head = [("attack", ""), ("one thing changed", "")]
    for metric in metrics:
        title = words.metric(metric, track).title
        head += [(f"{title}, before", ""), ("after", ""), ("difference", "after minus before"), ("by seed", "")]
    return Table("one thing changed at a time, without defense", head, out)


def _cells(row: Any, metric: words.Quantity) -> list[Cell]:
    verdict = "" if row.shown else "not shown: the interval holds 0, or seeds disagree"
    return [
        Cell(metric.show(row.mean_before), sort=row.mean_before),
        Cell(metric.show(row.mean_after), sort=row.mean_after),
        Cell(metric.show(row.difference, True) + ("" if row.shown else " (not shown)"), metric.span(row.low, row.high),
             row.difference, verdict, style="" if row.shown else "absent"),
        Cell(", ".join(metric.show(d, True) for d in row.by_seed)),
    ]  # fmt: skip


# --- drawn ---------------------------------------------------------------------------------------------


def draw(survey: Survey, folder: Path) -> list[Picture]:
    """The differences of all changes."""
    return [differences(rows, track, folder) for track, rows in measured(survey).items()]


def differences(rows: pd.DataFrame, track: str, folder: Path) -> Picture:
    """One line per change, one panel per metric: difference, interval, and each seed's own."""
    keys = list(dict.fromkeys(zip(rows["method"], rows["scenario"], rows["before"], rows["after"], rows["said"])))
    place = {key: i for i, key in enumerate(keys)}
    metrics = list(rows["metric"].unique())
    with canvas(11.5, 1.4 + 0.36 * len(keys), 1, len(metrics), sharey=True) as (figure, axes):
        for ax, name in zip(axes[0], metrics):
            metric = words.metric(name, track)
            for row in rows[rows["metric"] == name].itertuples():
                y = place[row.method, row.scenario, row.before, row.after, row.said]
                mean, low, high = (v * metric.factor for v in (row.difference, row.low, row.high))
                up = (row.difference > 0) == (metric.direction == "higher")
                colour = (COLOURS[3] if up else COLOURS[0]) if row.shown else GREY
                ax.errorbar(mean, y, xerr=np.nan_to_num([[mean - low], [high - mean]]).clip(min=0), color=colour,
                            marker="o", markersize=6, capsize=2.5, linewidth=1.3,
                            markerfacecolor=colour if row.shown else "white")  # fmt: skip
                seeds = np.array(row.by_seed) * metric.factor
                ax.scatter(seeds, np.full(len(seeds), y + 0.26), color=GREY, marker="|", s=30)
            ax.axvline(0, color="#222222", linewidth=0.9)
            ax.set_xlabel(f"change of {metric.title}\n{words.arrow(metric.direction)}")
        axes[0, 0].set_yticks(range(len(keys)), [f"{_name(k)}\n{k[4]}" for k in keys], fontsize=7)
        axes[0, 0].set_ylim(len(keys) - 0.4, -0.6)
        save(figure, folder / f"changes-{track}.png")
    caption = ("What one changed thing does without defense: after minus before, paired by seed and target, with 95 % "
               "intervals over targets; strokes below are single seeds. Red leaks more, blue less; hollow grey: not "
               "shown, because the interval holds 0 or the seeds disagree.")
    return Picture(folder / f"changes-{track}.png", caption, track, "overview")


def _name(key: tuple[str, ...]) -> str:
    return f"{words.method('attack', key[2], key[0])}, {key[1]}"  # method, scenario, entry
