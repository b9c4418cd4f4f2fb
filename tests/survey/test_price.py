"""What a defense costs: intervals over trainings and held-out samples, differences by seed, rounds."""

import math

import numpy as np
import pytest
from survey_cells import record

from inversionbench.core.quantity import MINUS
from inversionbench.core.records import pack
from inversionbench.survey import build, price, view

SAMPLES = 400


def cells(defense, strength, hits, seed=0, curves=None, **training):
    trials = [{"seed": s, **pack(h), **({"curve": curves[s]} if curves else {})} for s, h in enumerate(hits)]
    cell = record("photos", "dlg", defense, strength, seed, trials=trials)
    cell["parameters"]["scenario"]["training"] = training
    return cell


@pytest.mark.parametrize(("trainings", "luck"), [(1, 0.0), (3, 0.0), (3, 0.1), (3, 0.5), (5, 0.2)])
def test_intervals_hold_the_true_mean(trainings, luck):
    """Of 1,500 drawn tables the interval holds the true mean in 94.7 to 97.5 % (standard error 0.6 points), from
    trainings that do not differ at all to those that differ ten times more than samples leave open."""
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(1500):
        rows, columns = rng.normal(0, luck, (trainings, 1)), rng.normal(0, 1, SAMPLES)
        low, high = price.crossed(rows + columns + rng.normal(0, 0.5, (trainings, SAMPLES)))
        kept += low <= 0 <= high
    assert 0.925 <= kept / 1500 <= 0.995


def test_a_difference_is_paired_by_seed_and_sample():
    """Trainings that differ by 10 points and samples of very different difficulty cancel; 5 points of 400 samples stay,
    told to half a point."""
    rng = np.random.default_rng(1)
    plain = [rng.random(SAMPLES) < p for p in (0.7, 0.8, 0.9)]
    worse = [h & (np.arange(SAMPLES) % 20 > 0) for h in plain]
    found = price.measured([cells("none", 0.0, plain), cells("dgc", 0.9, worse)])["photos", "dgc", 0.9]
    lost = np.mean([w.mean() - h.mean() for w, h in zip(worse, plain)])
    assert found["utility_difference"] == pytest.approx(lost)
    assert found["utility_difference_low"] < lost < found["utility_difference_high"] < 0
    assert found["utility_high"] - found["utility_low"] > 5 * (
        found["utility_difference_high"] - found["utility_difference_low"])
    assert found["utility_seeds"] == 3
    late = price.measured([cells("none", 0.0, plain[:1]), cells("dgc", 0.9, worse)])["photos", "dgc", 0.9]
    assert late["utility_difference"] == pytest.approx(np.mean(worse[0]) - np.mean(plain[0]))  # of the seed both have


def test_a_perfect_score_has_an_interval():
    found = price.measured([cells("none", 0.0, [np.ones(SAMPLES)] * 2)])["photos", "none", 0.0]
    assert found["utility"] == found["utility_high"] == 1 > found["utility_low"] > 0.98


def test_rounds_are_counted_to_where_the_undefended_training_of_the_seed_ends():
    hits = [np.ones(SAMPLES)] * 3
    plain = [[[10, 0.5], [20, end * 0.96], [30, end]] for end in (0.6, 0.8, 1.0)]
    slow = [[[10, 0.1], [20, 0.5], [30, 0.79]]] * 3
    found = price.measured([cells("none", 0.0, hits, curves=plain), cells("dgc", 0.9, hits, curves=slow)])
    entry = found["photos", "dgc", 0.9]
    assert (entry["rounds_undefended"], entry["rounds_trained"]) == (20, 30)
    assert entry["rounds_to_target"] == 30  # reached in two of three
    assert price.rounds_to({0: {"curve": slow[0]}}, {0: {"curve": plain[2]}}) == math.inf
    assert price.rounds_to({0: {"curve": slow[0]}}, {0: {"curve": plain[2]}}, 0.4) == 20


def test_records_without_trials_count_by_their_target():
    found = price.measured([record("photos", "dlg", d, s, seed, utility={"accuracy": a + seed / 100}, target_seed=seed)
                            for d, s, a in (("none", 0.0, 0.9), ("dgc", 0.9, 0.8)) for seed in (0, 1, 2)])
    entry = found["photos", "dgc", 0.9]
    assert entry["utility"] == pytest.approx(0.81)
    assert entry["utility_difference_low"] == pytest.approx(entry["utility_difference_high"]) == pytest.approx(-0.1)
    assert entry["utility_high"] - entry["utility_low"] == pytest.approx(2 * 4.303 * 0.01 / 3**0.5, rel=1e-3)
    assert math.isnan(entry["rounds_to_target"])
    one = price.measured([record("photos", "dlg", "none", 0.0, 0)])["photos", "none", 0.0]
    assert one["utility"] == 0.9
    assert math.isnan(one["utility_low"])
    assert math.isnan(one["utility_high"])


def test_the_table_shows_them():
    plain = [[[10, 0.5], [20, 0.97], [30, 1.0]]] * 3
    never = [[[10, 0.1], [20, 0.1], [30, 0.9]]] * 3
    hits = np.arange(SAMPLES) % 10 > 0
    found = [cells("none", 0.0, [np.ones(SAMPLES)] * 3, curves=plain), cells("dgc", 0.9, [hits] * 3, curves=never)]
    found[1]["utility"]["diverged"] = 1 / 3
    table = view.defense_table(build.make(found, "smoke").defenses, "photos")
    shown = {title: (cell.text, cell.interval) for (title, _), cell in zip(table.head, table.rows[0][1])}
    minus = MINUS
    assert shown["accuracy of the target (%)"] == ("90.0 (did not train)", "[87.1, 92.9]")
    assert shown["its change"] == (f"{minus}10.0", f"[{minus}12.9, {minus}7.1]")
    assert shown["rounds to 95 %"] == ("> 30", "")
