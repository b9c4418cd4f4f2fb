"""What explains leakage: the share of variance, its difference and interval, on records made by formulas."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from inversionbench.tracks.classifier import figures


def record(defense, strength, seed, leak, utility, kind="attack"):
    same = {"track": "classifier", "scenario": "portraits", "target_seed": seed, "attack": "gmi"}
    return {**same, "kind": kind, "defense": defense, "strength": strength, "utility": utility,
            "metrics": {"identified": {"mean": leak}}}  # fmt: skip


def made(settings: int = 12):
    """Leakage is half of robust accuracy and a little noise; dependence and accuracy have nothing to do with it."""
    rng, found = np.random.default_rng(0), []
    for i in range(settings):
        for seed in range(3):
            robust, other, plain = rng.uniform(size=3)
            utility = {"robust_accuracy": robust, "effect_dependence_input": other, "accuracy": plain}
            weak = 0.5 * robust + 0.02 * rng.normal()
            found += [record(f"d{i}", 1.0, seed, weak, utility), record(f"d{i}", 1.0, seed, 0.99, utility, "control")]
            found[-2:] = [*found[-2:], {**record(f"d{i}", 1.0, seed, weak - 0.2, utility), "attack": "mi_face"}]
    return found


def test_a_target_counts_once_with_its_strongest_attack():
    points = figures.targets(made())
    assert len(points) == 36
    assert points["leak"].max() < 0.6  # no control
    assert points["leak"].mean() > 0.15  # nor the weaker attack


def test_the_explanation_that_made_the_numbers_explains_more():
    points = figures.targets(made())
    own, low, high = figures.difference(points, "robust_accuracy", "effect_dependence_input")
    assert low < own < high
    assert own > 0.7
    assert low > 0.3
    same = figures.difference(points, "robust_accuracy", "robust_accuracy")
    assert same == (0.0, 0.0, 0.0)
    none = figures.difference(points, "accuracy", "effect_dependence_input")
    assert none[1] < 0 < none[2]


def test_r_squared_is_that_of_a_line():
    x = np.random.default_rng(1).normal(size=20)
    y = 2 * x + np.random.default_rng(2).normal(size=20)
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    assert figures.r_squared(x, y) == pytest.approx(1 - residual.var() / y.var())
    assert figures.r_squared(x, np.ones(20)) == 0


def test_the_figure_says_it_and_needs_enough_settings(tmp_path):
    (tmp_path / "figures").mkdir()
    (picture,) = figures.draw(SimpleNamespace(records=made()), tmp_path / "figures")
    assert "robust accuracy explains more" in picture.caption
    assert "36 targets of portraits (12 settings)" in picture.caption
    assert figures.draw(SimpleNamespace(records=made(5)), tmp_path / "figures") == []
