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


def test_a_second_round_convinces_the_target_more(sharpened):
    first = replace(sharpened[0], data=sharpened[0].checkpoints[0][1])
    assert doubt(sharpened[0]) < doubt(first)


def test_a_tuned_prior_is_dense_at_the_answers_and_without_steps_it_is_the_old_one(sharpened):
    """Mean squared distance of the pivots' images to the answers falls; that of random samples to them, too."""
    prior, y = base(), torch.tensor([0])
    x = sharpened[0].checkpoints[0][1][:2]
    tuned, error = GMI.sharpened(prior, x, y)
    z = prior.sample(200, generator(3))

    def far(p):
        return (p.generator(z)[:, None] - x).square().mean((1, 2, 3, 4)).mean().item()

    assert far(tuned) < far(prior)
    assert 0 < error < far(prior)
    assert prior.critic is tuned.critic
    same, _ = replace(GMI, tune_steps=0, pivot_steps=1).sharpened(prior, x, y)
    assert torch.equal(same.generator(z), prior.generator(z))


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
