"""A sensitive column with rare values: no control shows a leak, and an overfitted tree shows its own in both gaps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import pytest
import torch
from tabular_cells import TRACK, attack, build

from inversionbench.core.defense import NONE
from inversionbench.core.scenario import Scenario
from inversionbench.data import _table
from inversionbench.data.base import PARTS, DatasetSource

SHARES = (0.38, 0.26, 0.15, 0.11, 0.09, 0.009, 0.001)  # the last two are left out of 500 members and 500 others
EFFECT = np.array([0.0, -1.0, 1.0, -2.0, 2.0, -1.5, 1.5])
COLUMNS = (_table.Column("kind", tuple("abcdefg"), sensitive=True), *map(_table.Column, ("one", "two", "three")))
SEEDS = range(8)


@dataclass(frozen=True)
class Skewed(DatasetSource):
    """A response in five classes that depends on the sensitive column and on noise."""

    id: ClassVar[str] = "skewed"

    def build(self, root, out, rng):
        parts = _table.deal("skewed", 3000, {**dict.fromkeys(PARTS, 500), "private": 1500}, rng)
        raw = {c.name: rng.standard_normal(3000) for c in COLUMNS}
        raw["kind"] = rng.choice(len(SHARES), 3000, p=SHARES)
        amount = EFFECT[raw["kind"]] + raw["one"] + rng.standard_normal(3000)
        y, _ = _table.quantiles(amount, 5, np.arange(3000))
        _table.write(out, raw, COLUMNS, y, parts, list("12345"), "kind")


@cache
def cells(name, access="BB-S"):
    """The evaluations of one attack on a full tree, one for every seed."""
    found = []
    for seed in SEEDS:
        data = build(Skewed(), seed)
        where = Scenario("cell", "tabular", "skewed", {"name": "tree"}, {"members": 500}, {}, 1000)
        goal = TRACK.train_target(where, NONE, data, seed, None)
        method = attack(name, access=access, belief="uniform")
        oracle = TRACK.oracle(where, goal.released, method, access, NONE, seed)
        knowledge = TRACK.knowledge(where, goal.released, data.public, data.meta, None)
        answer = method.run(oracle, knowledge, torch.Generator().manual_seed(seed))
        found.append(TRACK.evaluate(where, answer, goal, data, {}, seed))
    return found


def column(found, name):
    return np.array([f.metrics[name][0] for f in found])


@pytest.mark.parametrize("access", ["LO", "BB-S"])
@pytest.mark.parametrize("gap", ["member_gap", "auroc_gap"])
def test_a_control_shows_no_leak(access, gap):
    """Mean of 8 targets 0.00 or -0.01, standard error 0.01; the leak of the same tree begins at 0.16. Each interval
    over records holds 0 with 95 %: fewer than 5 of 8 do by chance once in 3,000 times."""
    found = cells("swapped_column", access)
    assert abs(column(found, gap).mean()) < 0.06
    prefix = gap.removeprefix("member_")
    assert sum(f.facts[f"{prefix}_low"] <= 0 <= f.facts[f"{prefix}_high"] for f in found) >= 5


def test_values_that_are_left_out_are_the_same_for_everybody():
    """Some member has the value f, a few of 500, in every target."""
    for control, leak in zip(cells("swapped_column"), cells("mi_attribute")):
        assert set(control.facts["left_out"]) == {"f", "g"}
        assert control.facts["left_out"] == leak.facts["left_out"]


@pytest.mark.parametrize("gap", ["member_gap", "auroc_gap"])
def test_an_overfitted_tree_shows_its_leak_in_both_gaps(gap):
    """Means 0.24 and 0.28, standard errors over targets 0.017 and 0.007; the control lies at 0."""
    found = cells("mi_attribute")
    assert column(found, gap).mean() > 0.15
    prefix = gap.removeprefix("member_")
    assert sum(f.facts[f"{prefix}_low"] > 0 for f in found) == len(found)
