"""Batch order: the assignment is the cheapest, one to one, and stays inside its batch."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.metrics import _matching, match, match_groups


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_a_shuffled_batch_comes_back():
    x = images(7)
    order = np.random.default_rng(0).permutation(7)
    found = match(x, x[order] + 0.01)
    assert torch.equal(x[order][found], x)


def test_the_assignment_is_the_cheapest_of_all():
    x, y = images(5), images(5, seed=1)
    cost = (x[:, None] - y[None]).square().flatten(2).mean(-1)
    best = min(permutations(range(5)), key=lambda p: sum(cost[i, p[i]].item() for i in range(5)))
    assert tuple(match(x, y)) == best


def test_no_reconstruction_is_used_twice():
    x = images(4)
    y = x[[0, 0, 0, 0]]
    assert sorted(match(x, y)) == [0, 1, 2, 3]


@pytest.mark.parametrize("budget", [1, 1 << 24])
def test_groups_are_matched_apart_from_each_other(monkeypatch, budget):
    monkeypatch.setattr(_matching, "BUDGET", budget)
    x, y = images(9), images(9, seed=1)
    groups = np.array([5, 2, 5, 2, 5, 2, 9, 9, 1])
    found = match_groups(x, y, groups)
    assert np.array_equal(groups[found], groups)
    for name in np.unique(groups):
        places = np.flatnonzero(groups == name)
        assert np.array_equal(found[places], places[match(x[places], y[places])])


def test_a_lost_reconstruction_takes_the_original_that_is_left():
    x = images(3)
    y = x[[1, 2, 0]].clone()
    y[1] = float("nan")
    assert list(match(x, y)) == [2, 0, 1]
    assert sorted(match(x, torch.full_like(x, float("inf")))) == [0, 1, 2]


def test_refusals():
    with pytest.raises(UserError, match="one shape"):
        match(images(3), images(2))
    with pytest.raises(UserError, match="group names"):
        match_groups(images(3), images(3), np.array([0, 1]))
    with pytest.raises(UserError):
        match(images(0), images(0))
    with pytest.raises(UserError, match="square"):
        _matching.assign(np.zeros((2, 3)))


def test_a_group_that_is_too_large_names_the_way_out(monkeypatch):
    monkeypatch.setattr(_matching, "LARGEST", 2)
    with pytest.raises(UserError, match="name the batches"):
        match(images(3), images(3))
