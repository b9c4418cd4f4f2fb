"""Tables as people see them: from numbers to cells with text, interval, sort value, note and links.

One `Table` is shown in Markdown and in HTML by the same data; what a reader may sort by is kept beside the
text. A number that does not exist is never a number: it is the word that says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from inversionbench.survey import words
from inversionbench.survey.collect import axis
from inversionbench.survey.defended import STRONGEST
from inversionbench.survey.figures import control_levels, headline_rows, quantity
from inversionbench.survey.remarks import Remarks
from inversionbench.survey.words import Quantity

MOST = 9  # metrics beside the headline; the others are in attacks.csv
COUNT = ("n", "values (targets)")
RECORDS = ("records", "by seed")
UNREMARKED = Remarks()


@dataclass(frozen=True)
class Cell:
    """text and, smaller, its interval; `sort`: value that sorting uses; note: shown on hovering and to screen
    readers; links: (text, path below the folder of cells); style: "", "absent" or "alarm"."""

    text: str = ""
    interval: str = ""
    sort: float | str | None = None
    note: str = ""
    links: tuple[tuple[str, str], ...] = ()
    style: str = ""


@dataclass(frozen=True)
class Table:
    """head: (title, explanation) per column; `style` of a row is "control" or ""."""

    caption: str
    head: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)


def attack_table(attacks: pd.DataFrame, scenario: str, remarks: Remarks = UNREMARKED) -> Table:
    """Every attack of a scenario without defense, strongest first, controls last."""
    part = attacks[attacks["scenario"] == scenario]
    main = headline_rows(attacks, scenario)
    metric = quantity(main)
    others = other_metrics(part, metric.id)[:MOST]
    head = [("attack", ""), ("access", ""), (metric.title, words.arrow(metric.direction)),
            ("median", ""), *((q.title, words.arrow(q.direction)) for q in others),
            COUNT, ("cost", "per cell"), RECORDS]
    order = main.sort_values("mean", ascending=metric.direction == "lower", na_position="last")
    order = order.sort_values("kind", kind="stable")
    values = {(r.attack, r.metric): r for r in part.itertuples()}
    rows = []
    for row in order.itertuples():
        cells = [_attack(row, remarks), Cell(words.label("levels", row.level))]
        cells += [_number(row, metric), _median(row, metric)]
        cells += [_number(values.get((row.attack, q.id), row), q) for q in others]
        cells += [_count(row), _cost(row), _records(row)]
        rows.append((("control" if row.kind == "control" else ""), cells))
    levels = {q.id: control_levels(part[part["metric"] == q.id]) for q in (metric, *others)}
    rows += [_control(name, [metric, *others], levels) for name in levels[metric.id]]
    return Table(f"{scenario}: every attack without defense", head, rows)


def defense_table(defenses: pd.DataFrame, scenario: str, remarks: Remarks = UNREMARKED) -> Table | None:
    """Every defense at every strength against the strongest attack of each access level."""
    rows = headline_rows(defenses, scenario)
    rows = rows[rows["attack"] == STRONGEST]
    if rows.empty:
        return None
    metric, use = quantity(rows), words.metric(rows.iloc[0]["utility_name"], kind="utility")
    head = [("defense", ""), ("strength", ""), ("access", ""),
            ("strongest attack", "† knows the defense"),
            (metric.title, words.arrow(metric.direction)), ("change", "against no defense"),
            (use.title, f"{'lower' if use.direction == 'lower' else 'higher'} is better"),
            ("its change", words.note("utility", "change")), *_rounds_head(rows), *_robust_head(rows), COUNT, RECORDS,
            *_stated_head(rows)]
    robust = words.metric("robust_accuracy", kind="utility")
    out = []
    for row in rows.itertuples():
        out.append(("", [
            _defense(row, remarks), Cell(f"{row.strength:g}", sort=row.strength),
            Cell(words.label("levels", row.level)),
            Cell(words.method("attack", row.entry, row.method) + (" †" if row.worse == "aware" else "")
                 + remarks.attack(row.entry, row.defense, row.strength)),
            _number(row, metric), _change(row, metric), _utility(row, use),
            Cell(use.show(row.utility_difference, True),
                 use.span(row.utility_difference_low, row.utility_difference_high), row.utility_difference),
            *(_rounds(row) for _ in _rounds_head(rows)),
            *(Cell(robust.show(row.robust_accuracy), sort=row.robust_accuracy) for _ in _robust_head(rows)),
            _count(row), _records(row), *(Cell(row.guarantee) for _ in _stated_head(rows)),
        ]))
    return Table(f"{scenario}: what every defense leaves to the strongest attack", head, out)


def pair_table(defenses: pd.DataFrame, scenario: str, remarks: Remarks = UNREMARKED) -> Table | None:
    """Every defense against every attack: the attacker that ignores it, the one that knows it, the worse."""
    rows = headline_rows(defenses, scenario)
    rows = rows[rows["attack"] != STRONGEST]
    if rows.empty:
        return None
    metric = quantity(rows)
    head = [("defense", ""), ("strength", ""), ("attack", ""), ("access", ""),
            ("ignores it", "the attacker does not know the defense"), ("knows it", "the attacker knows the defense"),
            (f"worse: {metric.title}", words.arrow(metric.direction)), ("change", "paired, against no defense"),
            COUNT, RECORDS, *_stated_head(rows)]
    out = [(("control" if row.kind == "control" else ""), [
        _defense(row, remarks), Cell(f"{row.strength:g}", sort=row.strength),
        Cell(words.method("attack", row.method) + remarks.attack(row.entry, row.defense, row.strength)),
        Cell(words.label("levels", row.level)),
        _side(row, "naive", metric), _side(row, "aware", metric),
        _number(row, metric), _change(row, metric), _count(row), _records(row),
        *(Cell(row.guarantee) for _ in _stated_head(rows)),
    ]) for row in rows.itertuples()]
    return Table(f"{scenario}: every defense against every attack", head, out)


def other_metrics(part: pd.DataFrame, main: str) -> list[Quantity]:
    """Metrics with at least one number, beside the headline, in the track's order."""
    track = part.iloc[0]["track"]
    shown = set(part.loc[part["mean"].notna(), "metric"]) - {main}
    listed = [m for m in words.track(track).directions if m in shown]
    return [words.metric(m, track) for m in (*listed, *sorted(shown - set(listed)))]


def absent_metrics(part: pd.DataFrame) -> list[tuple[str, str]]:
    """(metric, reason) of the metrics that nothing in these rows could compute."""
    with_number = set(part.loc[part["mean"].notna(), "metric"])
    rows = part[~part["metric"].isin(with_number) & (part["status"] == "missing")]
    return [(words.metric(m, g.iloc[0]["track"]).label, g.iloc[0]["reason"]) for m, g in rows.groupby("metric")]


def absent_attacks(part: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(attack, status, reason) of the attacks without a number, or with a number from some seeds only."""
    rows = part[part["headline"].astype(bool) & (part["status"] != "ok")]
    return [(words.method("attack", r.attack, r.method), _status(r.status), r.reason) for r in rows.itertuples()]


def _attack(row: Any, remarks: Remarks) -> Cell:
    name = words.method("attack", row.attack, row.method)
    marks = (" *" if row.rebuilt else "") + remarks.attack(row.attack)
    marks += " (control)" if row.kind == "control" else ""
    return Cell(name + marks, sort=name, note=row.attack if row.attack != name else "")


def _defense(row: Any, remarks: Remarks) -> Cell:
    name = words.method("defense", row.defense)
    return Cell(name + (" *" if row.rebuilt else "") + remarks.defense(row.defense), sort=name)


def _stated_head(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The column for what defenses state of themselves; none where no defense does."""
    return [("guarantee", "proven or assumed, by the defense's own account")] if rows["guarantee"].any() else []


def _number(row: Any, metric: Quantity) -> Cell:
    """A mean with its interval, or the word for why there is none."""
    if row.metric != metric.id and not math.isnan(row.mean):  # the headline's row stands in for one that is not there
        return Cell(words.label("status", "absent"), style="absent")
    verdict = getattr(row, "inert", "")
    if math.isnan(row.mean):
        return Cell(_status(row.status), note=row.reason, style="absent")
    if verdict == "inert":
        return Cell(words.label("status", "inert"), sort=row.mean, note=words.note("status", "inert"))
    shown = Cell(metric.show(row.mean), metric.span(row.low, row.high), row.mean,
                 row.reason if row.status == "partial" else "")
    if not verdict:
        return shown
    mark = {"differs": "alarm", "unchecked": "absent"}[verdict]
    return Cell(f"{words.label('status', verdict)} {shown.text}", shown.interval, row.mean,
                words.note("status", verdict), style=mark)


def _median(row: Any, metric: Quantity) -> Cell:
    return Cell(metric.show(row.median), sort=None if math.isnan(row.median) else row.median)


def _side(row: Any, side: str, metric: Quantity) -> Cell:
    mean, status = getattr(row, f"{side}_mean"), getattr(row, f"{side}_status")
    if math.isnan(mean):
        return Cell("" if status == "absent" else _status(status), style="absent")
    return Cell(metric.show(mean), metric.span(getattr(row, f"{side}_low"), getattr(row, f"{side}_high")), mean)


def _change(row: Any, metric: Quantity) -> Cell:
    if math.isnan(row.difference):
        return Cell()
    if row.inert == "inert":
        return Cell(words.label("status", "inert"), sort=0.0)
    said = row.verdict if row.verdict != "lowers" else ""
    text = metric.show(row.difference, True) + (f" ({words.label('verdicts', said)})" if said else "")
    return Cell(text, metric.span(row.difference_low, row.difference_high), row.difference,
                words.note("verdicts", said), style="absent" if said and said != "raises" else "")


def _utility(row: Any, use: Quantity) -> Cell:
    if math.isnan(row.utility):
        return Cell(words.label("status", "missing"), note=words.track(row.track).unpriced, style="absent")
    lost = f" ({words.label('utility', 'diverged')})" if row.diverged > 0 else ""
    note = f"mean of {row.utility_seeds:.0f} trainings" if row.utility_seeds > 1 else "one training"
    note += f"; {100 * row.diverged:.0f} % {words.note('utility', 'diverged')}" if lost else ""
    return Cell(use.show(row.utility) + lost, use.span(row.utility_low, row.utility_high), row.utility, note)


def _rounds_head(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The column for how long training takes; none where no round was counted."""
    use = words.metric("rounds_to_target", kind="utility")
    return [(use.title, use.note)] if rows["rounds_undefended"].notna().any() else []


def _robust_head(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The column for robust accuracy; none where it was not measured."""
    use = words.metric("robust_accuracy", kind="utility")
    return [(use.title, use.note)] if rows["robust_accuracy"].notna().any() else []


def _rounds(row: Any) -> Cell:
    if math.isnan(row.rounds_to_target):
        return Cell()
    never = math.isinf(row.rounds_to_target)
    shown = f"> {row.rounds_trained:.0f}" if never else f"{row.rounds_to_target:.0f}"
    return Cell(shown, sort=row.rounds_to_target, note=f"{row.rounds_undefended:.0f} without defense")


def _count(row: Any) -> Cell:
    return Cell(f"{row.n:.0f} ({row.units:.0f})" if row.n else "", sort=float(row.n))


def _cost(row: Any) -> Cell:
    """The count that this access level is judged by, or else another; the others in the note."""
    main = {"gradient evaluations": "gradient_evaluations", "queries": "queries"}.get(axis(row.level), "passes")
    names = sorted(("queries", "passes", "gradient_evaluations"), key=lambda name: name != main)
    counts = {name: getattr(row, f"cost_{name}", math.nan) for name in names}
    known = [(name.replace("_", " "), v) for name, v in counts.items() if v is not None and not math.isnan(v) and v > 0]
    if not known:
        return Cell()
    first, *others = [f"{v:,.0f}".replace(",", "\N{NO-BREAK SPACE}") + f" {name}" for name, v in known]
    return Cell(first, sort=known[0][1], note=", ".join(others))


def _records(row: Any) -> Cell:
    seeds = str(row.record_seeds).split()
    return Cell(links=tuple((seed, row.records.replace("*", seed)) for seed in seeds))


Levels = Mapping[str, Mapping[str, float]]  # metric -> control -> level


def _control(name: str, metrics: Iterable[Quantity], levels: Levels) -> tuple[str, list[Cell]]:
    """A row of levels that the cells carry: mean over targets and cells, without an interval."""
    first, *others = (Cell(q.show(levels[q.id][name]), sort=levels[q.id][name]) if name in levels[q.id] else Cell()
                      for q in metrics)
    title = Cell(words.label("controls", name), note=words.note("controls", name))
    return "control", [title, Cell("control"), first, Cell(), *others, Cell(), Cell(), Cell()]


def _status(status: str) -> str:
    return words.label("status", status) if status in words.words()["status"] else status
