"""The evaluation of attribute inference, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from tabular_cells import TRACK, attack, data, judges, reconstruct, scenario, target

from inversionbench.core.attack import Reconstruction
from inversionbench.core.errors import UserError
from inversionbench.tracks.tabular.evaluate import evaluate, gap_interval
from inversionbench.tracks.tabular.rows import METRICS

TIMES = 20  # of each record by hand: a value counts from 20 members and 20 non-members on
RELEASED = {
    "question": {"name": "gene", "values": ("x", "y"), "start": 0, "stop": 2, "width": 3},
    "marginal": torch.tensor([0.75, 0.25]),
    "records": torch.zeros(8 * TIMES, 1),
    "responses": torch.zeros(8 * TIMES, dtype=torch.int64),
}
TRUTH = {
    "value": torch.tensor([0, 0, 0, 1, 0, 0, 0, 1] * TIMES),
    "member": torch.tensor(([True] * 4 + [False] * 4) * TIMES),
    "flips": torch.tensor([True, True, False, True, False, False, False, True] * TIMES),
}


def judged(guess, scores=None, judge=None, truth=TRUTH, released=RELEASED):
    """guess, scores: of the eight records by hand, or of all."""
    guess, scores = (t if t is None or len(t) != 8 else t.repeat(TIMES, *[1] * (t.dim() - 1))
                     for t in (torch.as_tensor(guess), scores))  # fmt: skip
    return evaluate(Reconstruction(guess, released["responses"], scores), released, truth, judge or {})


def values(found):
    return {name: float(v[0]) for name, v in found.metrics.items()}


def test_by_hand():
    found = judged([0, 0, 1, 1, 0, 1, 1, 0])
    got = values(found)
    assert got["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert got["balanced_accuracy_nonmembers"] == pytest.approx((1 / 3 + 0) / 2)
    assert got["member_gap"] == pytest.approx((2 / 3 + 1) / 2 - 1 / 6)
    assert (got["accuracy"], got["accuracy_nonmembers"]) == (0.75, 0.25)
    assert found.facts["recall_members"] == {"x": pytest.approx(2 / 3, abs=1e-6), "y": 1.0}
    assert (found.facts["flip_share_members"], found.facts["flip_share_nonmembers"]) == (0.75, 0.25)
    assert found.facts["balanced_accuracy_flipping_members"] == 1.0
    assert found.facts["balanced_accuracy_fixed_members"] == 0.0
    assert found.groups.tolist() == [0]


def test_the_mode_is_worth_a_half():
    found = judged([0] * 8)
    got = values(found)
    assert (got["balanced_accuracy"], got["accuracy"], got["member_gap"]) == (0.5, 0.75, 0.0)
    assert {k: float(v[0]) for k, v in found.controls["mode"].items()}["balanced_accuracy"] == 0.5


def test_what_is_missing_has_a_reason():
    found = judged([0] * 8)
    assert set(found.unavailable) == {"auc", "auc_nonmembers", "auroc_gap", "advantage", "advantage_nonmembers"}
    assert "judges" in found.unavailable["advantage"]
    assert not set(found.unavailable) & set(found.metrics)


def test_auc_needs_the_order_only():
    scores = torch.tensor([[0.9, 0.1]] * 3 + [[0.8, 0.2]] + [[0.5, 0.5]] * 4)
    got = values(judged([0] * 8, scores))
    assert (got["auc"], got["auc_nonmembers"], got["auroc_gap"]) == (1.0, 0.5, 0.5)


def test_the_track_reports_what_it_promises():
    answer, _, _ = reconstruct(attack("mi_attribute", access="BB-S"))
    found = TRACK.evaluate(scenario(), answer, target(), data(), judges(), 0)
    assert set(found.metrics) | set(found.unavailable) == set(TRACK.metrics) - set(METRICS)
    assert TRACK.headline in found.metrics
    assert all(v.shape == (1,) and np.isfinite(v).all() for v in found.metrics.values())
    assert set(found.controls) == {"mode", "imputation", "imputation_without_response"}
    goal = target().truth
    member, value = goal["member"].numpy(), goal["value"].numpy()
    reference = balanced_accuracy_score(value[member], answer.data.numpy()[member])
    assert float(found.metrics["balanced_accuracy"][0]) == pytest.approx(reference)
    imputed = float(found.controls["imputation"]["balanced_accuracy"][0])
    assert float(found.metrics["advantage"][0]) == pytest.approx(reference - imputed)
    assert found.facts["gap_low"] < float(found.metrics["member_gap"][0]) < found.facts["gap_high"]


def test_the_imputer_beside_the_attack_is_as_strong_as_the_control_row():
    row, _, _ = reconstruct(attack("imputation"))
    found = TRACK.evaluate(scenario(), row, target(), data(), judges(), 0)
    assert abs(float(found.metrics["advantage"][0])) < 0.03


def test_a_judge_of_another_column_is_no_judge():
    other = TRACK.train_evaluator({"sensitive": "ancestry"}, data(), 0, None)
    answer, _, _ = reconstruct(attack("mode"))
    found = TRACK.evaluate(scenario(), answer, target(), data(), other, 0)
    assert "advantage" in found.unavailable
    with pytest.raises(UserError, match="did you mean 'sensitive'"):
        TRACK.check_evaluator({"sensitiv": "ancestry"})


def test_a_value_with_few_records_decides_nothing():
    """A third value with 3 members, all guessed rightly, and 19 non-members: left out of every average, and said."""
    value = torch.cat([TRUTH["value"], torch.full((22,), 2)])
    member = torch.cat([TRUTH["member"], torch.arange(22) < 3])
    truth = {"value": value, "member": member, "flips": torch.ones(len(value), dtype=torch.bool)}
    question = {**RELEASED["question"], "values": ("x", "y", "z"), "stop": 3, "width": 4}
    released = {**RELEASED, "question": question, "marginal": torch.tensor([0.7, 0.2, 0.1])}
    guess = torch.cat([torch.tensor([0, 0, 1, 1, 0, 1, 1, 0] * TIMES), torch.full((22,), 2)])
    found = judged(guess, torch.full((len(value), 3), 1 / 3), truth=truth, released=released)
    got = values(found)
    assert got["member_gap"] == pytest.approx((2 / 3 + 1) / 2 - 1 / 6)
    assert got["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert (got["auc"], got["auroc_gap"]) == (0.5, 0.0)
    assert found.facts["left_out"] == {"z": [3, 19]}
    assert "gene: fewer than 20 records" in found.facts["warnings"][0]
    assert found.facts["warnings"][0].endswith(": z")
    assert "warnings" not in judged([0] * 8).facts


def test_one_value_alone_has_no_average():
    truth = {**TRUTH, "value": torch.zeros_like(TRUTH["value"])}
    found = judged([0] * 8, torch.full((8, 2), 0.5), truth=truth)
    assert set(found.metrics) == {"accuracy", "accuracy_nonmembers"}
    assert "fewer than two values" in found.unavailable["member_gap"]
    assert set(found.controls["mode"]) == {"accuracy", "accuracy_nonmembers"}


@pytest.mark.parametrize("rare", [0.34, 0.05], ids=["even", "rare"])
@pytest.mark.parametrize("recall", [0.7, 0.98])
def test_the_interval_of_the_gap_covers(rare, recall):
    """Of 400 repetitions with a true gap of 0.2 about 380 cover it, with a standard deviation of 4; also where the
    rarest value has hardly more records than are asked for, and is nearly always guessed."""
    rng = np.random.default_rng(0)
    n, covered = 600, 0
    member = np.arange(2 * n) < n
    for _ in range(400):
        value = rng.choice(3, 2 * n, p=[(1 - rare) / 2, (1 - rare) / 2, rare])
        right = rng.random(2 * n) < np.where(member, recall, recall - 0.2)
        low, high = gap_interval(right, value, member, range(3))
        covered += low <= 0.2 <= high
    assert covered >= 364
