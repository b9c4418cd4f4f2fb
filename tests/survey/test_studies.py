"""Figures of what leakage depends on: which scenarios belong together, and that a figure shows what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from survey_cells import record, summary

from inversionbench.survey import build, studies


def cell(scenario, attack="dlg", psnr=20.0, rounds=0, **protocol):
    """A record of the federated track on a scenario that is told by its settings."""
    values = np.linspace(psnr - 2, psnr + 2, 6)
    metrics = {"psnr": summary(values), "ssim": summary(values / 30), "success_20": summary((values > 20) * 1.0)}
    place = {"model": {"name": "convnet"}, "training": {"rounds": rounds} if rounds else {}, "protocol": protocol}
    made = record("photos", attack, "none", 0.0, 0, metrics=metrics, parameters={"scenario": place, "attack": {}},
                  facts={"target_epochs": rounds / 5}, curves={})  # fmt: skip
    return {**made, "key": f"{scenario}/{attack}/none/0/0", "scenario": scenario}


def label_cell(scenario, rule, value, rounds=0, batch=8):
    made = cell(scenario, f"label_{rule}", rounds=rounds, batch_size=batch, labels="hidden", ask="labels")
    made["parameters"]["attack"] = {"rule": rule}
    change = {"method": "label_recovery", "metrics": {"label_recovery": summary(np.full(6, value))}, "unavailable": {}}
    return {**made, **change, "controls": {"blind_guess": {"label_recovery": 0.4}}}


@pytest.fixture(autouse=True)
def more_attacks(monkeypatch):
    import survey_cells

    rows = dict.fromkeys(("label_row_sum", "label_ilrg"), ("label_recovery", "GR", "attack", False, 0.0))
    monkeypatch.setitem(survey_cells.ATTACKS, "photos", {**survey_cells.ATTACKS["photos"], **rows})


BATCHES = [cell(f"b{b}", psnr=26 - b, batch_size=b) for b in (1, 4, 8)]


def test_scenarios_belong_together_when_one_thing_differs():
    batch, steps, epochs = studies.STUDIES
    odd = [cell("hidden", batch_size=4, labels="hidden"), cell("trained", rounds=20, batch_size=4)]
    assert studies.groups([*BATCHES, *odd], batch) == [{"b1": 1, "b4": 4, "b8": 8}]
    assert studies.groups(BATCHES, steps) == studies.groups(BATCHES, epochs) == []
    assert studies.groups([*BATCHES, *odd], epochs) == [{"b4": 0.0, "trained": 4.0}]
    local = [cell(f"u{8 // n}", batch_size=8, sends="delta", local_batch=n) for n in (8, 4, 1)]
    assert studies.groups([*local, *BATCHES], steps) == [{"u1": 1, "u2": 2, "u8": 8}]


def test_a_figure_for_every_dependence_that_the_run_has(tmp_path: Path):
    found = [*BATCHES, *(cell(f"b{b}", "wrong_gradient", 12.0, batch_size=b) for b in (1, 4, 8)),
             cell("e1", rounds=5, batch_size=1), label_cell("l8", "row_sum", 0.7),
             label_cell("l8", "ilrg", 1.0)]  # fmt: skip
    pictures = studies.draw(build.make(found, "federated"), tmp_path)
    names = {p.path.name for p in pictures}
    assert names == {f"study-{name}.png" for name in ("batch", "epochs", "spread", "success", "labels")}
    assert all(p.path.stat().st_size > 5000 for p in pictures)
    assert {(p.kind, p.scenario) for p in pictures} == {("overview", "federated")}
    again = studies.draw(build.make(found, "federated"), tmp_path / "again")
    assert [p.path.read_bytes() for p in pictures] == [p.path.read_bytes() for p in again]


def test_lines_hold_the_attacks_that_span_the_study():
    table = build.make([*BATCHES, cell("b1", "inverting_gradients", 30.0, batch_size=1)], "federated").attacks
    rows = studies._strongest(table[table["metric"] == "psnr"], {"b1": 1, "b4": 4, "b8": 8})
    assert rows.loc[rows["attack"] == "dlg", ["x", "mean"]].to_numpy().tolist() == [[1, 25], [4, 22], [8, 18]]
    assert set(rows["attack"]) == {"dlg", "inverting_gradients"}


def test_values_of_images_come_from_one_study():
    odd = cell("hidden", psnr=5.0, batch_size=4, labels="hidden")
    frame = studies._by_batch([*BATCHES, odd], ["psnr"])
    assert sorted(set(frame["batch"])) == [1, 4, 8]
    assert frame["value"].min() > 10
    assert studies._by_batch([BATCHES[0]], ["psnr"]).empty


def test_one_setting_of_everything_draws_nothing(survey: build.Survey, tmp_path: Path):
    assert studies.draw(survey, tmp_path) == []
