"""Intervals and summaries: hand cases, a second library, and how often the interval holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from inversionbench.errors import UserError
from inversionbench.metrics import interval, summarise, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 10), (3, 10), (7, 8), (100, 100), (50, 1000)])
def test_wilson_agrees_with_scipy(k, n):
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 4), (5, 4), (math.nan, 4)])
def test_wilson_refuses_what_is_no_proportion(k, n):
    with pytest.raises(UserError, match="wilson"):
        wilson(k, n)


def test_interval_is_seeded_and_has_about_its_level():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(300, 25))
    bounds = [interval(x, draws=400) for x in samples]
    assert interval(samples[0], seed=1) == interval(samples[0], seed=1) != interval(samples[0], seed=2)
    assert 0.88 < np.mean([low <= 0 <= high for low, high in bounds]) < 0.98


def test_values_of_one_target_are_drawn_together():
    """Copies of one value per target add no information: the interval must not shrink with their number."""
    rng = np.random.default_rng(0)
    per_target = rng.normal(size=20)
    once = interval(per_target)
    copied, targets = np.repeat(per_target, 50), np.repeat(np.arange(20), 50)
    assert interval(copied, targets) == pytest.approx(once, abs=1e-12)
    low, high = interval(copied)
    assert high - low < (once[1] - once[0]) / 4


def test_groups_of_unequal_size_are_weighted_by_their_values():
    low, high = interval([0.0, 0.0, 0.0, 1.0], groups=["a", "a", "a", "b"])
    assert (low, high) == (0.0, 1.0)
    assert summarise([0.0, 0.0, 0.0, 1.0], groups=["a", "a", "a", "b"]).mean == 0.25


def test_shares_that_are_all_hit_or_missed_have_wilsons_interval_over_targets():
    groups = np.repeat(np.arange(10), 5)
    assert interval(np.zeros(50), groups, share=True) == pytest.approx(wilson(0, 10))
    assert interval(np.ones(50), groups, share=True) == pytest.approx(wilson(10, 10))
    assert interval(np.ones(50), groups) == (1.0, 1.0)
    some = np.arange(50) % 2
    assert interval(some, groups, share=True) == interval(some, groups)
    assert all(math.isnan(v) for v in interval([1.0], share=True))


def test_one_target_has_no_interval():
    assert all(math.isnan(v) for v in interval([0.5]))
    summary = summarise([0.2, 0.4], groups=[3, 3])
    assert (summary.low, summary.high, summary.n, summary.targets) == (None, None, 2, 1)


def test_summary_leaves_out_what_is_undefined_and_says_so():
    record = summarise([math.nan, 1.0, 3.0]).record()
    assert record["mean"] == 2.0
    assert (record["n"], record["undefined"]) == (2, 1)
    assert all(v is None or math.isfinite(v) for v in record.values())


@pytest.mark.parametrize(
    ("values", "groups"),
    [([], None), ([[1.0]], None), ([1.0, 2.0], [0]), ([1.0, math.inf], None), ([1.0, math.nan], None)],
)
def test_interval_refuses(values, groups):
    with pytest.raises(UserError, match="interval"):
        interval(values, groups)


def test_summary_needs_a_defined_finite_value():
    with pytest.raises(UserError, match="none of the values"):
        summarise([math.nan])
    with pytest.raises(UserError, match="not finite"):
        summarise([math.inf, 1.0])
