"""From folders of cells to one tidy frame."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path

import pandas as pd
import pytest
from survey_cells import all_records, record, write_cell

from inversionbench.core.errors import UserError
from inversionbench.survey import collect, costs


def test_every_cell_and_metric_has_one_row(cells: Path) -> None:
    frame = collect.collect(cells)
    assert set(frame["key"]) == {r["key"] for r in all_records()}
    assert not frame.duplicated(["key", "metric"]).any()
    assert (frame.groupby("key")["headline"].sum() == 1).all()


def test_values_are_those_of_the_record(cells: Path) -> None:
    frame = collect.collect(cells).set_index(["key", "metric"])
    cell = record("photos", "dlg", "dgc", 0.99, 1)
    row = frame.loc[(cell["key"], "psnr")]
    assert row["value"] == cell["metrics"]["psnr"]["mean"]
    assert list(row["values"]) == cell["metrics"]["psnr"]["values"]
    assert row["control_mean_image"] == 12.5
    assert row["utility_accuracy"] == cell["utility"]["accuracy"]
    assert row["record"] == f"{cell['key']}/record.json"
    assert (cells / row["record"]).is_file()
    assert row["direction"] == "higher"
    assert frame.loc[(cell["key"], "mse"), "direction"] == "lower"


def test_an_attack_that_notes_that_it_adapts_is_aware() -> None:
    cell = record("photos", "dlg", "dgc", 0.9, 0, facts={"adaptive": True})
    assert collect.tidy([cell])["aware"].all()
    assert not collect.tidy([{**cell, "facts": {"adaptive": False}}])["aware"].any()


def test_only_an_attack_that_read_the_defense_is_aware(cells: Path) -> None:
    frame = collect.collect(cells)
    assert set(frame.loc[frame["aware"], "attack"]) == {"inverting_gradients_aware"}
    assert "none" not in set(frame.loc[frame["aware"], "defense"])


@pytest.mark.parametrize(("attack", "status"), [("rlb_mi", "denied"), ("ppa", "unavailable")])
def test_no_answer_is_no_number(cells: Path, attack: str, status: str) -> None:
    rows = collect.collect(cells).query("attack == @attack")
    assert set(rows["status"]) == {status}
    assert rows["value"].isna().all()
    assert (rows["n"] == 0).all()
    assert (rows["reason"] != "").all()


def test_a_metric_without_weights_is_missing_with_its_reason(cells: Path) -> None:
    rows = collect.collect(cells).query("metric == 'lpips' and attack == 'dlg'")
    assert set(rows["status"]) == {"missing"}
    assert rows["reason"].str.contains("alexnet").all()


def test_parquet_is_equal_byte_for_byte_and_reads_back(cells: Path, tmp_path: Path) -> None:
    frame = collect.collect(cells)
    for name in ("a", "b"):
        collect.write(collect.collect(cells), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    back = pd.read_parquet(tmp_path / "a")
    assert list(back["key"]) == list(frame["key"])
    assert list(back["values"][1]) == frame["values"][1]


def test_nothing_measured_by_a_clock_enters_the_frame(cells: Path, tmp_path: Path) -> None:
    copy = tmp_path / "results" / "smoke"
    shutil.copytree(cells, copy / "cells")
    shutil.rmtree(copy / "timings", ignore_errors=True)
    assert collect.collect(copy / "cells").equals(collect.collect(cells))
    clocked = costs.by_cell(collect.read(cells))
    assert (clocked["seconds"] == 1.5).all()
    assert clocked.loc[clocked["key"].str.contains("brep_mi"), "queries_by_phase"].eq("search=400").all()


def test_curves_say_what_they_count(cells: Path) -> None:
    points = collect.curves(collect.read(cells))
    assert set(points.loc[points["attack"] == "brep_mi", "axis"]) == {"queries"}
    assert set(points.loc[points["attack"] == "gmi", "axis"]) == {"passes through the model"}


def test_a_curve_of_a_gradient_attack_ends_at_its_answer() -> None:
    def points(attack: str, scenario: str, **cost: int) -> list[tuple[float, float]]:
        made = record(scenario, attack, "none", 0.0, 0, cost=cost)
        rows = collect.curves([made])
        assert rows["nth"].tolist() == list(range(len(rows)))
        return [*zip(rows["budget"], rows["value"])]

    on_the_way = points("dlg", "photos", gradient_evaluations=1000)
    mean = record("photos", "dlg", "none", 0.0, 0)["metrics"]["psnr"]["mean"]
    assert [budget for budget, _ in on_the_way] == [10, 100, 1000]
    assert points("dlg", "photos", gradient_evaluations=2000) == [*on_the_way, (2000, mean)]
    assert len(points("gmi", "portraits", gradient_evaluations=2000)) == 3  # those hold it, counted for each answer


def test_broken_and_misplaced_records_are_named(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, record("photos", "dlg", "none", 0.0, 0))
    (folder / "record.json").write_text("{")
    with pytest.raises(UserError, match=r"none/0/0/record.json is damaged \(.*Delete \S+/photos/dlg and run"):
        collect.read(tmp_path)
    write_cell(tmp_path, record("photos", "dlg", "none", 0.0, 0))
    text = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**text, "key": "photos/dlg/none/0/7"}))
    with pytest.raises(UserError, match="ends with its key"):
        collect.read(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        collect.read(tmp_path / "nothing")


def places(value: object, at: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Where in a nested value something stands; of a list the first."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield (*at, name)
        yield from places(inner, (*at, name))


def test_whatever_stands_in_a_record_by_mistake_is_refused_or_harmless(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, record("photos", "dlg", "none", 0.0, 0))
    text, refused, tried = (folder / "record.json").read_text(), 0, 0
    for *at, last in places(json.loads(text)):
        for wrong in (None, [], {}, "x", math.nan, -1, [[1]], {"a": {"b": None}}):
            changed = json.loads(text)
            reduce(getitem, at, changed)[last] = wrong
            (folder / "record.json").write_text(json.dumps(changed))
            tried += 1
            try:
                found = collect.read(tmp_path)
            except UserError:
                refused += 1
                continue
            if found[0]["track"] != "x":  # a plug-in may be gone; here it has no words
                collect.tidy(found)
                collect.curves(found)
    assert refused > 0.7 * tried


def test_two_folders_may_repeat_a_record_but_not_contradict(cells: Path, tmp_path: Path) -> None:
    write_cell(tmp_path, record("photos", "dlg", "none", 0.0, 0))
    assert len(collect.read([cells, tmp_path])) == len(all_records())
    write_cell(tmp_path, record("photos", "dlg", "none", 0.0, 0, facts={"other": 1}))
    with pytest.raises(UserError, match="two different records"):
        collect.read([cells, tmp_path])
