"""Figures of what leakage depends on: which scenarios belong together, and that a figure shows what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from survey_cells import record, summary

from inversionbench.survey import build
from inversionbench.tracks.federated.figures import spreads, studies


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


def groups(found, study):
    return [dict(family.values) for family in studies.families(found, study)]


BATCHES = [cell(f"b{b}", psnr=26 - b, batch_size=b) for b in (1, 4, 8)]


def test_scenarios_belong_together_when_one_thing_differs():
    batch, steps, epochs = studies.STUDIES
    odd = [cell("hidden", batch_size=4, labels="hidden"), cell("trained", rounds=20, batch_size=4)]
    assert groups([*BATCHES, *odd], batch) == [{"b1": 1, "b4": 4, "b8": 8}]
    assert groups(BATCHES, steps) == groups(BATCHES, epochs) == []
    assert groups([*BATCHES, *odd], epochs) == [{"b4": 0.0, "trained": 4.0}]
    local = [cell(f"u{8 // n}", batch_size=8, sends="delta", local_batch=n) for n in (8, 4, 1)]
    assert groups([*local, *BATCHES], steps) == [{"u1": 1, "u2": 2, "u8": 8}]


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
    once = [cell("b1", "inverting_gradients", 30.0, batch_size=1)]
    table = build.make([*BATCHES, *once], "federated").attacks
    rows = studies._strongest(table[table["metric"] == "psnr"], {"b1": 1, "b4": 4, "b8": 8})
    assert rows[["attack", "x", "mean"]].to_numpy().tolist() == [["dlg", 1, 25], ["dlg", 4, 22], ["dlg", 8, 18]]


HIDDEN = [cell(f"h{b}", psnr=5.0, batch_size=b, labels="hidden") for b in (1, 4)]


def test_families_have_panels_of_their_own_and_say_what_they_are(tmp_path: Path, monkeypatch):
    drawn = []
    save = studies.save
    monkeypatch.setattr(studies, "save", lambda figure, path: (drawn.append(figure), save(figure, path)))
    studies.draw(build.make([*BATCHES, *HIDDEN], "federated"), tmp_path)
    wide, hidden = drawn[0].axes
    assert [ax.get_title("left") for ax in (wide, hidden)] == ["convnet", "convnet, labels hidden"]
    for ax, low, high in ((wide, 18, 25), (hidden, 5, 5)):  # every panel shows its own data whole
        assert ax.get_ylim()[0] < low <= high < ax.get_ylim()[1]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mean image", "DLG"]


def test_families_are_never_pooled():
    frame = spreads.images([*BATCHES, *HIDDEN], ["psnr"])
    means = frame.groupby(["block", "batch"])["value"].mean().to_dict()
    assert means == {("convnet", 1): 25, ("convnet", 4): 22, ("convnet", 8): 18,
                     ("convnet, labels hidden", 1): 5, ("convnet, labels hidden", 4): 5}  # fmt: skip
    assert spreads.images([BATCHES[0]], ["psnr"]).empty


def test_an_attack_that_no_family_has_stands_with_its_scenario():
    alone = cell("wire", "inverting_gradients", 15.0, batch_size=1, observer="eavesdropper")
    known = cell("wire", "dlg", 15.0, batch_size=1, observer="eavesdropper")
    frame = spreads.images([*BATCHES, alone, known], ["psnr"])
    names = set(zip(frame["block"], frame["attack"]))
    assert names == {("convnet", "DLG"), (spreads.ELSEWHERE, "Inverting Gradients, wire")}


def test_shares_have_a_line_for_each_attack_below_its_block():
    frame = spreads.images([*BATCHES, *HIDDEN], ["success_20"])
    table, ticks = spreads._shares(frame, [1, 4, 8])
    assert ticks == {0: ("convnet", True), 1: ("DLG", False), 2: ("convnet, labels hidden", True), 3: ("DLG", False)}
    assert table.loc[1].tolist() == pytest.approx([100, 100 * 5 / 6, 0])  # lowest images: 23, 20 and 16 dB
    assert table.loc[3].fillna(-1).tolist() == [0, 0, -1]


def test_exact_images_do_not_flatten_the_others(tmp_path: Path, monkeypatch):
    drawn = []
    monkeypatch.setattr(spreads, "save", lambda figure, path: drawn.append(figure))
    spreads.spread([*BATCHES, cell("b1", "inverting_gradients", 60.0, batch_size=1)], tmp_path)
    ax = drawn[0].axes[0]
    assert ax.get_xlim()[1] < 45
    assert ax.get_xticklabels()[-1].get_text() == "≥ 40"


def test_one_setting_of_everything_draws_nothing(survey: build.Survey, tmp_path: Path):
    assert studies.draw(survey, tmp_path) == []
