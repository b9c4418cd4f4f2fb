"""One row per attack: it beats the control with the wrong gradient, counts its work, and repeats itself."""

from __future__ import annotations

import pytest
import torch
from inversion_cells import attack, psnr, scenario

STEPS = 100
ROWS = [
    ("agic", {}, {"batch_size": 1}, "convnet"),
    ("rgcir", {}, {"batch_size": 1}, "convnet"),
    ("sgi", {"last": 0.0}, {"batch_size": 1}, "convnet"),
    ("gradinversion", {"seeds": 2, "bn": 0.0, "tv": 0.01}, {"batch_size": 1}, "convnet"),
    ("egia", {"access": "GR-D", "route": "search"}, {"batch_size": 1}, "convnet"),
]


@pytest.mark.parametrize(("name", "params", "protocol", "model"), ROWS, ids=[row[0] for row in ROWS])
def test_beats_the_wrong_gradient(name, params, protocol, model):
    s = scenario(model, **protocol)
    found = attack(name, s, steps=STEPS, **params)
    control = attack("wrong_gradient", s, steps=STEPS)
    assert psnr(s, found) > psnr(s, control) + 1
    trials = 4 * params.get("seeds", 1)
    assert found.cost["gradient_evaluations"] == STEPS * trials
    budgets = [n for n, _ in found.checkpoints]
    assert budgets == sorted(set(budgets))
    assert budgets[-1] == STEPS // 2 * trials
    assert psnr(s, found) > psnr(s, type(found)(found.checkpoints[0][1], found.labels))


@pytest.mark.parametrize(("name", "params", "protocol", "model"), ROWS, ids=[row[0] for row in ROWS])
def test_same_seed_same_bytes(name, params, protocol, model):
    s = scenario(model, **protocol)
    first, second = (attack(name, s, steps=8, **params) for _ in range(2))
    assert torch.equal(first.data, second.data)
    assert first.notes["match"] == second.notes["match"]
