"""Trees that avoid an attribute: the learner against scikit-learn's, and against a table without the columns."""

from __future__ import annotations

import numpy as np
import pytest

from inversionbench.models import trees
from inversionbench.models.cart import Learner, importance

FREE = 1e-9  # a penalty that changes no choice


def table(n=600, seed=0):
    """Continuous columns and noisy classes, so that no two splits of many rows are equally good; three classes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 5)).astype(np.float32)
    y = np.digitize(x[:, 0] + 0.8 * x[:, 3] + rng.standard_normal(n), [-0.5, 0.5])
    return x, y.astype(np.int64)


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("left", "right", "counts", "roots"))


@pytest.mark.parametrize("seed", range(3))
def test_without_a_penalty_it_is_scikit_learns_tree(seed):
    x, y = table(seed=seed)
    own = Learner(3, 40, (0, 1), penalty=FREE).grow(x, y, 3, 0)
    other = trees.grow(x, y, 3, 0, 3, 40)
    assert same(own, other)
    assert np.array_equal(own.feature, other.feature)
    inner = own.left >= 0
    assert np.allclose(own.threshold[inner], other.threshold[inner], rtol=1e-6)
    plain = Learner(3, 40, (0, 1)).grow(x, y, 3, 0)
    assert plain.state().keys() == other.state().keys()
    assert all(np.array_equal(plain.state()[name], t) for name, t in other.state().items())


@pytest.mark.parametrize("depth", [3, None])
def test_the_full_penalty_is_a_table_without_the_columns(depth):
    x, y = table()
    own = Learner(depth, 1, (0, 2), penalty=1.0).grow(x, y, 3, 0)
    without = Learner(depth, 1, (0, 0), penalty=1.0).grow(x[:, 2:], y, 3, 0)
    assert same(own, without)
    assert np.array_equal(np.where(own.feature < 0, -1, own.feature - 2), without.feature)
    assert np.array_equal(own.threshold, without.threshold)
    assert importance(own, 0, 2) == 0 < importance(own, 3, 4) < 1


def test_influence_falls_with_the_penalty():
    """Means over eight tables: .47, .43, .34, 0."""
    found = [np.mean([importance(Learner(6, 5, (0, 1), penalty=p).grow(*table(seed=s), 3, 0), 0, 1) for s in range(8)])
             for p in (FREE, 0.5, 0.75, 1.0)]  # fmt: skip
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.4 > found[2]
    assert found[-1] == 0


@pytest.mark.parametrize("level", [0, 2])
def test_one_depth_may_be_free(level):
    x, y = table()
    grown = Learner(5, 5, (0, 1), penalty=1.0, free_at=level).grow(x, y, 3, 0)
    depth = np.zeros(len(grown.left), int)
    for node in np.flatnonzero(grown.left >= 0):  # parents stand before their children
        depth[[grown.left[node], grown.right[node]]] = depth[node] + 1
    assert set(depth[grown.feature == 0]) == {level}


def test_stopping_rules_and_counts():
    x, y = table()
    grown = Learner(3, 25, (0, 1), penalty=0.5).grow(x, y, 3, 0)
    leaf = grown.left < 0
    assert grown.counts[leaf].sum(1).min() >= 25
    assert grown.counts[leaf].sum() == len(y)
    assert leaf.sum() <= 8
    full = Learner(None, 1, (0, 1), penalty=0.5).grow(x, y, 3, 0)
    assert (trees.probabilities(full, x).argmax(1) == y).all()
