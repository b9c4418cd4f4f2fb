"""KEDMI: a Gaussian per class that the loop can search, and its switches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from classifier_cells import data, doubt, generator, judges, knowledge, scenario, target
from target_cells import again, loaded, run

from inversionbench.tracks.classifier.attacks.gmi import Gmi
from inversionbench.tracks.classifier.attacks.kedmi import Gaussian, Kedmi
from inversionbench.tracks.classifier.attacks.random_prior import RandomPrior
from inversionbench.tracks.classifier.evaluate import refer, score
from inversionbench.tracks.classifier.track import network

ATTACK = Kedmi(iterations=120, log_variance=-2.0, box=1.5, restarts=4, keep_at=(40,))
CLASSES = scenario().subjects


def scores(answer):
    values = score(judges(), refer(judges(), data().private), answer.data, answer.labels, network(target().released))
    return {name: value.mean() for name, value in values.values.items()}


def test_beats_random_samples_of_its_prior():
    """Cross entropy of the target over seeds: 0.05 to 0.8 for 4.3 to 4.8 of random samples."""
    y = torch.arange(CLASSES)
    random = RandomPrior(restarts=4).run(None, knowledge(prior=loaded("kedmi_gan"), targets=y), generator())
    assert doubt(run(replace(ATTACK, iterations=300))[0]) < 0.75 * doubt(random)


def test_one_pass_per_class_and_step_and_draws_of_each_class():
    answer, oracle = run(ATTACK)
    assert oracle.ledger.passes == CLASSES * 120
    assert answer.labels.tolist() == [k for k in range(CLASSES) for _ in range(4)]
    assert [budget for budget, _ in answer.checkpoints] == [10, 30]  # passes per answer
    assert torch.equal(answer.checkpoints[-1][1], answer.data)
    assert len(answer.checkpoints[0][1]) == len(answer.data)
    assert answer.data.unflatten(0, (CLASSES, 4)).std(1).mean() > 0.005  # draws of a class differ
    mean = run(replace(ATTACK, answer="mean"))[0]
    assert mean.labels.tolist() == list(range(CLASSES))


def test_same_seed_same_bits():
    short = replace(ATTACK, iterations=5, keep_at=())
    first, same, other = (again(short, seed=s)[0].data for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_off_and_off_is_gmi():
    point = Kedmi(base="dcgan", latent="point", iterations=8, box=1.0, restarts=2)
    ours, theirs = run(point)[0], run(Gmi(iterations=8, restarts=2))[0]
    assert torch.equal(ours.data, theirs.data)


def test_draws_have_the_mean_and_spread_that_were_learned():
    latent = Gaussian(torch.tensor([[1.0, -2.0], [0.0, 0.5]]), -2.0, 0.0, generator())
    rows = latent.several(4000).view(2, 4000, 2)
    assert torch.allclose(rows.mean(1), latent.mean, atol=0.03)
    assert torch.allclose(rows.std(1), torch.full((2, 2), torch.tensor(-1.0).exp().item()), atol=0.02)
    boxed = Gaussian(torch.tensor([[3.0, 0.0]]), 0.0, 1.5, generator()).several(100)
    assert boxed.abs().max() <= 1.5


def test_the_gradient_reaches_mean_and_variance():
    """Of E z^2 = mu^2 + sigma^2, over many samples."""
    latent = Gaussian(torch.full((1, 2000), 0.7), -1.0, 0.0, generator())
    latent.draw().square().mean().backward()
    assert latent.mean.grad.sum().item() == pytest.approx(2 * 0.7, rel=0.1)
    assert latent.log_variance.grad.sum().item() == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.1)


def test_the_spread_is_reported_and_shrinks_where_the_target_wants_it():
    start = torch.tensor(-1.0).exp().item()
    reported = run(replace(ATTACK, realism=0.0))[0].notes["mean_sigma"]
    assert 0 < reported < 1.2 * start
    frozen = run(replace(ATTACK, iterations=2, rate=0.0, keep_at=()))[0].notes["mean_sigma"]
    assert frozen == pytest.approx(start, rel=1e-4)
