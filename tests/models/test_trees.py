"""Trees as arrays: the same bits as scikit-learn, through a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from inversionbench.models import trees


@pytest.fixture(scope="module")
def table():
    """Columns of small integers (many equal values, thresholds halfway) and of reals; five noisy classes."""
    rng = np.random.default_rng(0)
    x = np.c_[rng.integers(0, 3, (400, 3)), rng.standard_normal((400, 4))].astype(np.float32)
    y = (x[:, 0] + (x[:, 3] > 0) + rng.integers(0, 2, 400)).astype(np.int64)
    return x[:200], y[:200], x[200:]


@pytest.mark.parametrize(("depth", "leaf"), [(None, 1), (8, 5), (1, 1)])
def test_a_tree_answers_as_scikit_learn(table, depth, leaf):
    x, y, new = table
    known = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=leaf, random_state=3).fit(x, y)
    own = trees.grow(x, y, 5, 3, depth, leaf)
    assert np.array_equal(trees.probabilities(own, new), known.predict_proba(new))
    assert np.array_equal(trees.leaves(own, new)[:, 0], known.apply(new))


@pytest.mark.parametrize("balanced", [False, True])
def test_a_forest_answers_as_scikit_learn(table, balanced):
    x, y, new = table
    weight = "balanced" if balanced else None
    known = RandomForestClassifier(7, min_samples_leaf=3, class_weight=weight, random_state=3).fit(x, y)
    own = trees.grow_forest(x, y, 5, 3, trees=7, balanced=balanced)
    assert np.array_equal(trees.probabilities(own, new)[:, known.classes_], known.predict_proba(new))


def test_classes_that_never_occur_get_nothing(table):
    x, y, new = table
    tree = trees.grow(x, y * 2, 10, 0)
    forest = trees.grow_forest(x, y * 2, 10, 0, trees=5)
    for model in (tree, forest):
        share = trees.probabilities(model, new)
        assert share.shape == (len(new), 10)
        assert (share[:, 1::2] == 0).all()
        assert np.allclose(share.sum(1), 1)


def test_counts_are_the_training_rows(table):
    x, y, _ = table
    tree = trees.grow(x, y, 5, 0, depth=4)
    node = trees.leaves(tree, x)[:, 0]
    for leaf in np.unique(node):
        assert np.array_equal(tree.counts[leaf], np.bincount(y[node == leaf], minlength=5))


def test_through_a_file(table, tmp_path):
    x, y, new = table
    forest = trees.grow_forest(x, y, 5, 0, trees=5)
    torch.save(forest.state(), tmp_path / "forest.pt")
    again = trees.from_state(torch.load(tmp_path / "forest.pt", weights_only=True))
    assert np.array_equal(trees.probabilities(again, new), trees.probabilities(forest, new))


def test_as_a_classifier(table):
    x, y, new = table
    tree = trees.grow(x, y, 5, 0, depth=4)
    model = trees.TreeModel(tree)
    logits = model(torch.from_numpy(new))
    share = trees.probabilities(tree, new)
    assert torch.isfinite(logits).all()
    assert np.allclose(logits.softmax(1).numpy(), share, atol=1e-6)
    assert np.array_equal(logits.argmax(1).numpy(), share.argmax(1))
    assert not any(p.requires_grad for p in model.parameters())
