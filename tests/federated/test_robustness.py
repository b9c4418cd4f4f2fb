"""The bound on any reconstruction, against simulated mechanisms and the best attack on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from federated_cells import scenario, target

from inversionbench.defenses.differential_privacy._robustness import approximate, gaussian, sampled
from inversionbench.defenses.differential_privacy.dp_sgd import DpSgd, epsilon
from inversionbench.survey import bounds


def best_attack(records, sigma, rate, steps, trials, seed):
    """Share of right answers of the most likely record, of `records` orthogonal ones that are equally likely (so a
    guess is right in 1 / records of the cases), from `steps` noisy sums that hold it at `rate`."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(records, size=trials)
    score = np.zeros((trials, records))
    for _ in range(steps):
        seen = sigma * rng.standard_normal((trials, records))
        seen[np.arange(trials), truth] += rng.random(trials) < rate
        score += np.logaddexp(np.log1p(-rate) if rate < 1 else -np.inf, np.log(rate) + (seen - 0.5) / sigma**2)
    return float((score.argmax(1) == truth).mean())


@pytest.mark.parametrize(("sigma", "steps"), [(0.3, 1), (1.0, 1), (2.0, 4), (4.0, 4)])
def test_nothing_passes_the_bound_of_a_gaussian_release(sigma, steps):
    """Ten records. Bound 0.98, 0.39, 0.39, 0.22; the best attack reaches 0.94, 0.34, 0.34, 0.20: below it, and above
    three fifths of it, so that the bound says something."""
    found = best_attack(10, sigma, 1.0, steps, 20_000, 0)
    proof = gaussian(0.1, steps**0.5 / sigma)
    assert 0.6 * proof < found < proof + 3 * (proof * (1 - proof) / 20_000) ** 0.5


def test_the_bound_is_reached_by_the_event_that_makes_it():
    """P(E) of the event of largest ratio, by drawing: exact within three standard errors, not only above."""
    rng, mu, kappa = np.random.default_rng(1), 1.3, 0.05
    edge = np.quantile(rng.standard_normal(400_000), 1 - kappa)
    share = (mu + rng.standard_normal(400_000) > edge).mean()
    assert share == pytest.approx(gaussian(kappa, mu), abs=0.005)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(1.0, 0.2, 10), (0.7, 0.5, 4)])
def test_nothing_passes_the_drawn_bound_of_a_sampled_release(sigma, rate, steps):
    estimate, high = sampled(0.1, sigma, rate, steps)
    found = best_attack(10, sigma, rate, steps, 20_000, 2)
    assert 0.5 * estimate < found < high
    assert estimate < gaussian(0.1, steps**0.5 / sigma)  # sampling helps


def test_drawing_agrees_with_the_formula_where_there_is_one():
    for sigma, steps in ((1.0, 1), (2.0, 9)):
        estimate, high = sampled(0.1, sigma, 1.0, steps)
        exact = gaussian(0.1, steps**0.5 / sigma)
        assert estimate == pytest.approx(exact, abs=0.02)
        assert exact < high < exact + 0.05


def test_the_ends():
    assert gaussian(0.0, 5.0) == 0
    assert gaussian(1.0, 0.0) == 1
    assert gaussian(0.2, 0.0) == pytest.approx(0.2)
    assert approximate(0.1, 0.5, 1e-5) >= gaussian(0.1, 0.15)  # epsilon of mu = 0.15 at delta 1e-5 is below 0.5


def test_records_carry_it():
    """At noise 1, of one step: 39 % where a guess has 10. More noise proves more; several local steps prove less."""
    told = [DpSgd(strength=s).guarantee(0.1, 20) for s in (0.5, 1.0, 4.0)]
    assert told[1]["bound_step"] == pytest.approx(0.389, abs=1e-3)
    for name in ("bound_step", "bound_total"):
        values = [t[name] for t in told]
        assert values == sorted(values, reverse=True)
    assert epsilon(0.1, 1.0, 20, 1e-5) > 0
    net = {"name": "mlp", "widths": [8]}
    one = target(scenario(net, 1, batch_size=2), DpSgd(strength=2.0)).utility
    two = target(scenario(net, 1, batch_size=2, local_batch=1, sends="delta"), DpSgd(strength=2.0)).utility
    assert one["mu_round"] == 0.5
    assert two["mu_round"] == pytest.approx(0.5 * 2**0.5)
    assert "mu_round" not in target(scenario(net, 1, batch_size=2)).utility


def test_the_figure_draws_the_bound(tmp_path):
    """Settings with a proof only, at the upper end of what the controls reach."""
    place = {"scenario": "s", "track": "federated", "metric": "success_20", "inert": ""}
    frame = pd.DataFrame([
        {"scenario": "s", "defense": d, "strength": v, "utility_mu_round": m}
        for d, v, m in (("dp_sgd", 1.0, 1.0), ("dp_sgd", 4.0, 0.25), ("dgc", 0.9, np.nan))
    ])  # fmt: skip
    attacks = pd.DataFrame([{**place, "n": 40, "control_mean_image": 0.05, "control_truth": 1.0}])
    defenses = pd.DataFrame([
        {**place, "attack": bounds.STRONGEST, "defense": d, "strength": v, "mean": 0.1, "low": 0.0, "high": 0.2}
        for d, v in (("dp_sgd", 1.0), ("dp_sgd", 4.0), ("dgc", 0.9))
    ])  # fmt: skip
    rows = bounds.points(frame, attacks, defenses, "s")
    assert rows["strength"].tolist() == [1.0, 4.0]
    assert 0.1 < rows["kappa"].iloc[0] < 0.2  # 2 of 40: upper end 17 %
    assert rows["bound"].iloc[0] > rows["bound"].iloc[1] > rows["kappa"].iloc[0]
    picture = bounds.bound(frame, attacks, defenses, "s", tmp_path)
    assert picture.path.stat().st_size > 5000
    assert bounds.bound(frame.drop(columns="utility_mu_round"), attacks, defenses, "s", tmp_path) is None
