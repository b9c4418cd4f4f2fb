"""GI-NAS: every architecture can be built, the search takes the best, the untrained network is a prior."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from inversion_cells import attack, oracle_of, scenario, truth
from prior_cells import decoys, psnr
from scipy.stats import spearmanr

from inversionbench.core.errors import UserError
from inversionbench.gradients.latent import Matcher
from inversionbench.gradients.problem import read
from inversionbench.gradients.untrained import ACTIVATIONS, CONVOLUTIONS, KERNELS, UPSAMPLINGS, Architecture, draw, make
from inversionbench.gradients.weights import Candidates, fit

CELL = scenario(batch_size=1)
SMALL = {"levels": 2, "width": 8, "steps": 50, "rate": 5e-3}


@pytest.fixture(scope="module")
def found():
    return attack("gi_nas", CELL, candidates=12, **SMALL)


def test_every_building_block_makes_images():
    z = torch.randn(2, 3, 16, 16)
    for i, parts in enumerate(product(UPSAMPLINGS, CONVOLUTIONS, KERNELS, ACTIVATIONS)):
        if i % 4 == parts[2] // 2 % 4:  # every pair of upsampling and convolution, kernels in turn
            made = make(Architecture(((True, True), (False, True)), *parts), 3, 8, 0)(z)
            assert made.shape == z.shape
            assert 0 < made.min() < made.max() < 1


def test_skips_connect_the_levels_they_name():
    none, up, down = (
        make(Architecture(s, "nearest", "conv", 3, "relu"), 3, 8, 0)
        for s in (((False,) * 2,) * 2, ((False, False), (True, False)), ((False, True), (False, False)))
    )
    assert [b[1].in_channels for b in none.decoder] == [8, 8]
    assert [b[1].in_channels for b in up.decoder] == [16, 8]  # encoder level 1 feeds decoder level 0
    assert [b[1].in_channels for b in down.decoder] == [8, 16]
    assert len({str(draw(3, torch.Generator().manual_seed(i))) for i in range(40)}) > 35


def test_the_candidate_with_the_lowest_score_is_kept(found):
    best, mean = found.notes["search_score"], found.notes["search_score_mean"]
    assert all(b < m for b, m in zip(best, mean))
    assert found.notes["over_parameterised"]
    assert found.cost["gradient_evaluations"] == 4 * (12 + 50)
    assert all(n > 4 * 12 for n, _ in found.checkpoints)  # the search is paid for before anything is shown


def test_chosen_candidates_end_better_than_random_ones():
    """All of 8 candidates are fitted to all of 4 clients: those with the lowest score against their mean."""
    problem = read(oracle_of(CELL))
    images, labels = truth(CELL)
    matcher = Matcher(problem, labels, 1, 0.0, "cosine", "plain", "auto")
    pool = Candidates.draw(8, 2, 8, problem.shape[1:], torch.Generator().manual_seed(5))
    scores = pool.scores(matcher)
    fits = [fit(matcher, [pool.network(i) for _ in range(4)], pool.z0, 35, 5e-3, True) for i in range(8)]
    loss = torch.stack([f.match for f in fits], dim=1)
    error = torch.stack([(problem.model.front.pixels(f.x) - images).square().mean((1, 2, 3, 4)) for f in fits], dim=1)
    chosen = scores.argmin(dim=1)
    assert loss[range(4), chosen].mean() < loss.mean()
    assert error[range(4), chosen].log().mean() < error.log().mean()
    assert np.mean([spearmanr(scores[k], loss[k])[0] for k in range(4)]) > 0


def test_beats_the_wrong_gradient(found):
    wrong = attack("gi_nas", CELL, oracle=decoys(CELL), candidates=12, **SMALL)
    assert psnr(CELL, found.data) > psnr(CELL, wrong.data) + 1


def test_the_network_is_a_prior_for_batches():
    """Batch 4: better than pixels without total variation at the same number of gradients."""
    four = scenario(batch_size=4, subjects=2)
    net = attack("gi_nas", four, candidates=10, **{**SMALL, "steps": 70})
    pixels = attack("inverting_gradients", four, steps=80, tv=0.0)
    assert net.cost == pixels.cost
    assert psnr(four, net.data) > psnr(four, pixels.data)


def test_same_seed_same_images():
    once, again = (attack("gi_nas", CELL, candidates=1, **{**SMALL, "steps": 5}) for _ in range(2))
    assert torch.equal(once.data, again.data)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="cannot be halved 4 times"):
        attack("gi_nas", CELL, levels=4, width=8)
    with pytest.raises(UserError, match="multiple of 4"):
        attack("gi_nas", CELL, levels=2, width=6)
