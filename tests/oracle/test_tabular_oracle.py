"""Oracles of tables: valid records only, trees behind every level, the twin behind its control."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inversionbench.core.errors import AccessDenied, BudgetExceeded
from inversionbench.models import tabular, trees
from inversionbench.oracle.strict import served
from inversionbench.oracle.tabular import tabular_oracle


def released():
    """A tree and its twin on one number and one column of three categories."""
    rng = np.random.default_rng(0)
    code, y = rng.integers(0, 3, 60), rng.integers(0, 2, 60)
    x = np.c_[rng.standard_normal(60), np.eye(3)[code]].astype(np.float32)
    grow = lambda labels: tabular.state_of(trees.TreeModel(trees.grow(x, labels, 2, 0)), {}, 4, 2)
    return {
        "model": grow(y), "twin": grow(1 - y), "classes": 2, "one_hot": [(1, 4)],
        "range": [float(x.min()), float(x.max())], "question": {"width": 4},
    }, torch.from_numpy(x), torch.from_numpy(y)  # fmt: skip


def test_labels_and_scores():
    public, x, y = released()
    assert torch.equal(tabular_oracle(public, "LO").labels(x), y)
    scores = tabular_oracle(public, "BB-S").scores(x)
    assert torch.allclose(scores, torch.nn.functional.one_hot(y).float(), atol=1e-6)


def test_the_twin():
    public, x, y = released()
    assert torch.equal(tabular_oracle(public, "LO", twin=True).labels(x), 1 - y)


def test_white_box_shows_the_leaves():
    public, x, y = released()
    oracle = tabular_oracle(public, "WB")
    tree = oracle.module().model.trees
    assert np.array_equal(trees.probabilities(tree, x.numpy()).argmax(1), y.numpy())
    assert tree.counts[0].sum() == 60
    assert torch.equal(oracle.module()(x).argmax(1), y)
    assert oracle.ledger.passes == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :3], "shape"),
        (lambda x: torch.cat([x[:, :1], torch.zeros(60, 3)], 1), "one category"),
        (lambda x: torch.cat([x[:, :1], torch.ones(60, 3)], 1), "one category"),
        (lambda x: torch.cat([x[:, :1], x[:, 1:] / 2], 1), "one category"),
        (lambda x: x * 100, "values in"),
        (lambda x: x.double(), "dtype"),
    ],
    ids=["width", "none", "all", "half", "range", "dtype"],
)
def test_what_is_no_record_is_refused(change, message):
    public, x, _ = released()
    for level, call in (("LO", "labels"), ("BB-S", "scores")):
        oracle = tabular_oracle(public, level)
        with pytest.raises(ValueError, match=message):
            getattr(oracle, call)(change(x))
        assert oracle.ledger.queries == 0


def test_levels_and_budget():
    public, x, _ = released()
    for level, call in (("LO", "scores"), ("BB-S", "labels"), ("LO", "module"), ("BB-S", "logits")):
        with pytest.raises(AccessDenied):
            getattr(tabular_oracle(public, level), call)(x)
    with pytest.raises(AccessDenied, match="gradient"):
        tabular_oracle(public, "BB-S").scores(x.clone().requires_grad_())
    oracle = tabular_oracle(public, "LO", budget=100)
    oracle.labels(x)
    with pytest.raises(BudgetExceeded):
        oracle.labels(x)


def test_served_from_another_process_it_refuses_the_same_records():
    public, x, y = released()
    with served(lambda: tabular_oracle(public, "LO")) as oracle:
        assert torch.equal(oracle.labels(x), y)
        assert oracle.ledger.queries == len(x)
        with pytest.raises(ValueError, match="one category"):
            oracle.labels(torch.zeros(1, 4))
