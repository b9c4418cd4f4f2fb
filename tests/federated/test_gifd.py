"""GIFD: stages, balls, and what moving from codes to features gains."""

from __future__ import annotations

import pytest
import torch
from inversion_cells import scenario, target
from prior_cells import prior, run

from inversionbench.core.balls import l1_ball
from inversionbench.core.defense import NONE
from inversionbench.core.errors import UserError
from inversionbench.core.protocol import Protocol
from inversionbench.gradients.features import FeatureSpaceSearch, Packed
from inversionbench.gradients.latent import Matcher
from inversionbench.gradients.problem import Problem
from inversionbench.tracks.federated.attacks.gifd import Gifd
from inversionbench.tracks.federated.target import global_model

CELL = scenario(batch_size=1)
SETTINGS = {"steps": 30, "restarts": 1, "tv": 0.01, "radii": (0.3, 0.1)}


@pytest.fixture(scope="module")
def found():
    return run("gifd", CELL, stages=2, **SETTINGS)


def walk(attack, part=slice(None)):
    """The walk of one attack over the cell's clients, run."""
    released = target(CELL).released
    problem = Problem(global_model(CELL, NONE, released), Protocol(batch_size=1), released["updates"]["client"])
    matcher = Matcher(problem, released["labels"], 1, attack.tv, "cosine", "plain", "auto")
    made = FeatureSpaceSearch(attack, prior(), matcher, part)
    style = prior().style
    v = torch.randn(matcher.trials, 1, style.num_ws, style.w_dim, generator=torch.Generator().manual_seed(1))
    return made, made.run(v)


def test_later_stages_never_match_worse(found):
    stages = torch.tensor(found.notes["match_by_stage"])
    assert (found.scores[:, 0] <= stages[0]).all()
    assert torch.equal(stages.min(0).values, found.scores[:, 0])
    assert [n for n, _ in found.checkpoints] == [120, 240]


def test_every_step_stays_inside_the_balls():
    tight, _ = walk(Gifd(stages=2, steps=15, radii=(0.05, 0.02), style_radius=0.02, noise_radius=0.02))
    assert -0.01 < tight.overrun < 1e-4  # reached, never left


def test_without_balls_the_match_is_no_worse():
    free = Gifd(stages=2, steps=30, tv=0.01, radii=(1e9, 1e9), style_radius=1e9, noise_radius=1e9)
    tight = Gifd(stages=2, steps=30, tv=0.01, radii=(0.02, 0.02), style_radius=0.02, noise_radius=0.02)
    assert walk(free)[1].match.mean() < walk(tight)[1].match.mean()


def test_a_stage_begins_where_the_last_one_ended():
    """With a rate of zero a stage changes nothing, unless the earlier colours are dropped."""
    still = {"stages": 2, "steps": 2, "latent_rate": 0.1, "rate": 0.0}
    kept, _ = walk(Gifd(**still, carry_rgb=True))
    dropped, _ = walk(Gifd(**still, carry_rgb=False))
    torch.testing.assert_close(kept.history[0], kept.history[2])
    assert (dropped.history[0] - dropped.history[1]).abs().max() > 1e-3


def test_nothing_of_the_prior_changes(found):
    before = {n: t.clone() for n, t in prior().generator.state_dict().items()}
    again = run("gifd", CELL, stages=2, **SETTINGS)
    assert torch.equal(again.data, found.data)
    assert all(torch.equal(t, before[n]) for n, t in prior().generator.state_dict().items())


def test_the_projection_is_the_nearest_point_of_the_ball():
    rng = torch.Generator().manual_seed(0)
    v = torch.randn(6, 9, generator=rng, dtype=torch.float64)
    for radius in (0.5, 2.0, 100.0):
        p = l1_ball(v, radius)
        assert (p.abs().sum(1) <= radius + 1e-9).all()
        torch.testing.assert_close(l1_ball(p, radius), p)
        for _ in range(200):  # no other point of the ball is nearer
            q = torch.randn(6, 9, generator=rng, dtype=torch.float64)
            q = q * (radius * torch.rand(6, 1, generator=rng, dtype=torch.float64) / q.abs().sum(1, keepdim=True))
            assert ((p - v).square().sum(1) <= (q - v).square().sum(1) + 1e-9).all()
    assert torch.equal(l1_ball(v, 100.0), v)


def test_packing_is_undone_by_splitting():
    parts = [torch.randn(3, 2, 4, 4), torch.randn(3, 5), torch.randn(3, 1, 2, 2)]
    packed = Packed([tuple(p.shape[1:]) for p in parts])
    assert all(torch.equal(a, b) for a, b in zip(packed.split(packed.join(parts)), parts))


def test_batches_and_wrong_stages():
    two = scenario(batch_size=2, subjects=2)
    made = run("gifd", two, stages=1, **{**SETTINGS, "steps": 5, "restarts": 2})
    assert made.data.shape == (2, 2, 3, 16, 16)
    with pytest.raises(UserError, match="expected 0 to 2"):
        run("gifd", CELL, stages=3)
