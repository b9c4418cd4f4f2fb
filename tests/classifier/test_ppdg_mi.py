"""PPDG-MI: a prior sharpened towards the first answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from classifier_cells import SUBJECTS, doubt, generator
from style_cells import attack_style, style_prior
from target_cells import again, base

from inversionbench.tracks.classifier.attacks.gmi import Gmi
from inversionbench.tracks.classifier.attacks.ppdg_mi import PpdgMi

GMI = PpdgMi(base="gmi", iterations=12, rate=0.02, restarts=4, keep=2, transforms=3, pivot_steps=30, tune_steps=60,
             tune_rate=1e-3, realism=0.0)  # fmt: skip


@pytest.fixture(scope="module")
def sharpened():
    return again(GMI)


def test_every_pass_is_counted_and_rounds_repeat_to_the_bit(sharpened):
    answer, asked = sharpened
    rows = SUBJECTS * 4
    assert [(row.phase, row.inputs) for row in asked.ledger.rows] == [
        ("search", rows * 12), ("select", rows * 3), ("search", rows * 12)]  # fmt: skip
    assert [budget for budget, _ in answer.checkpoints] == [12, 12 + 3 + 12]
    assert torch.equal(answer.checkpoints[-1][1], answer.data)
    assert torch.equal(again(GMI)[0].data, answer.data)
    assert answer.labels.tolist() == [k for k in range(SUBJECTS) for _ in range(4)]


def test_the_first_round_is_the_host(sharpened):
    host = again(Gmi(iterations=12, rate=0.02, restarts=4, realism=0.0))[0]
    assert torch.equal(sharpened[0].checkpoints[0][1], host.data)


def test_a_second_round_gains_by_the_sharpened_prior():
    """Searches of few steps, so that the prior counts. The target's cross entropy over seeds: 1.3 to 2.3, by a second
    round under the prior as it was 1.8 to 2.9; ratio 0.64 to 0.81."""
    few = replace(GMI, iterations=5, restarts=8, keep=3, pivot_steps=15, tune_steps=150, tune_rate=3e-3)
    assert doubt(again(few)[0]) < 0.92 * doubt(again(replace(few, tune_steps=0))[0])


def test_the_prior_itself_stays_and_without_steps_its_copy_is_the_same(sharpened):
    prior, y = base(), torch.tensor([0])
    x, z = sharpened[0].checkpoints[0][1][:2], prior.sample(50, generator(3))
    before = prior.generator(z)
    tuned, error = GMI.sharpened(prior, x, y)
    assert 0 < error < (before[:, None] - x).square().mean()
    assert torch.equal(prior.generator(z), before)
    assert not torch.equal(tuned.generator(z), before)
    assert prior.critic is tuned.critic
    same, _ = replace(GMI, tune_steps=0, pivot_steps=1).sharpened(prior, x, y)
    assert torch.equal(same.generator(z), before)


def test_it_sharpens_a_style_space_too():
    attack = PpdgMi(base="ppa", iterations=3, rate=0.04, samples=60, candidates=4, restarts=2, keep=2, transforms=2,
                    pivot_steps=5, tune_steps=5, tune_rate=1e-2)  # fmt: skip
    before = style_prior().style.synthesis(torch.zeros(1, style_prior().style.num_ws, 24))
    answer, _ = attack_style(attack)
    assert len(answer.data) == SUBJECTS * 2
    assert torch.equal(before, style_prior().style.synthesis(torch.zeros(1, style_prior().style.num_ws, 24)))


def test_it_cannot_keep_more_than_it_has():
    with pytest.raises(ValueError, match="keep"):
        PpdgMi(keep=5, restarts=4)
