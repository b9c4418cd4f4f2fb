"""GGI: the search in the prior's latents finds what the gradient says, no more than the prior can make."""

from __future__ import annotations

import pytest
import torch
from inversion_cells import data, oracle_of, scenario
from prior_cells import decoys, prior, psnr, run

from inversionbench.core.errors import UserError
from inversionbench.gradients.latent import sphere
from inversionbench.gradients.schedules import factor
from inversionbench.models.style import StyleGenerator

CELL = scenario(batch_size=1)
SETTINGS = {"steps": 40, "rate": 0.1, "tv": 0.01}


@pytest.fixture(scope="module")
def found():
    return run("ggi", CELL, restarts=3, **SETTINGS)


def test_beats_the_wrong_gradient_and_a_prior_that_learnt_nothing(found):
    wrong = run("ggi", CELL, oracle=decoys(CELL), restarts=3, **SETTINGS)
    blank = run("ggi", CELL, given=prior(0), restarts=3, **SETTINGS)
    assert psnr(CELL, found.data) > psnr(CELL, wrong.data) + 1
    assert psnr(CELL, found.data) > psnr(CELL, blank.data) + 1


def test_restarts_are_chosen_by_matching_loss(found):
    once = run("ggi", CELL, restarts=1, **SETTINGS)
    assert (found.scores <= once.scores + 1e-6).all()  # the first restart starts from the same latents
    assert (found.scores < once.scores).any()
    assert found.cost["gradient_evaluations"] == 3 * 40 * 4
    budgets = [n for n, _ in found.checkpoints]
    assert budgets == sorted(budgets)
    assert all(x.shape == found.data.shape for _, x in found.checkpoints)


def test_same_seed_same_images_and_the_prior_stays(found):
    before = {n: t.clone() for n, t in prior().generator.state_dict().items()}
    again = run("ggi", CELL, restarts=3, **SETTINGS)
    assert torch.equal(found.data, again.data)
    assert all(torch.equal(t, before[n]) for n, t in prior().generator.state_dict().items())


def test_images_lie_in_the_range_of_the_prior(found):
    """With a latent of 16 numbers, the answer is an image that the generator makes: some latent gives it."""
    style = prior().style
    x = found.data[:, 0]
    z = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pool = style(z)
        z = z[torch.cdist(x.flatten(1), pool.flatten(1)).argmin(1)]
    z.requires_grad_()
    optimiser = torch.optim.Adam([z], 0.1)
    for _ in range(150):
        optimiser.zero_grad()
        error = (style(z) - x).square().mean((1, 2, 3))
        error.sum().backward()
        optimiser.step()
    own = error.detach().median()
    assert own < 0.25 * (data().private.images()[:4].mean() - x).square().mean()


def test_sphere_keeps_norms():
    z = torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(0))
    after = sphere(z.clone())
    moved = z + 0.3
    after(moved, 0)
    torch.testing.assert_close(moved.norm(dim=-1), z.norm(dim=-1))
    assert not torch.allclose(moved, z)


def test_the_rate_rises_and_falls():
    rates = [factor("ramp", t, 100) for t in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4] == rates[20] == 1.0
    assert rates[99] < 0.01
    assert rates[25:] == sorted(rates[25:], reverse=True)


def test_a_prior_of_another_size_is_refused():
    style = StyleGenerator(4, 4, (4, 4), 3, 8)
    other = type(prior())(style, None, 4, torch.zeros(4), torch.ones(4))
    with pytest.raises(UserError, match=r"makes images of shape \(3, 8, 8\)"):
        run("ggi", CELL, given=other)
    with pytest.raises(UserError, match="match"):
        run("ggi", CELL, match="masked", oracle=oracle_of(CELL))
