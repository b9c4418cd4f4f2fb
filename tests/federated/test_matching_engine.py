"""Objectives, priors, optimisers and the search around them."""

import math
from typing import get_args

import pytest
import torch
from federated_cells import generator

from inversionbench.core import attack as base
from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.gradients.adam import Adam
from inversionbench.gradients.inits import INITS, start
from inversionbench.gradients.labels import RULES
from inversionbench.gradients.lbfgs import LBFGS
from inversionbench.gradients.objectives import Matching, support
from inversionbench.gradients.regularisers import total_variation
from inversionbench.gradients.search import Found, adam, chunks, select
from inversionbench.gradients.simulate import FORMS
from inversionbench.tracks.federated.attacks._adaptive import MATCHES


def test_cosine_and_its_gradient():
    g = torch.randn(3, 20, dtype=torch.float64, generator=generator()).requires_grad_()
    observed = torch.randn(3, 20, dtype=torch.float64, generator=generator(1))
    ours = Matching(observed)(g)
    plain = 1 - torch.nn.functional.cosine_similarity(g, observed, dim=1)
    assert torch.allclose(ours, plain)
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    a, b = (torch.autograd.grad((v * weight).sum(), g)[0] for v in (ours, plain))
    assert torch.allclose(a, b)
    assert torch.allclose(Matching(7 * observed)(g), ours)  # blind to the scale of what was observed
    assert not torch.allclose(Matching(7 * observed, "l2")(g), Matching(observed, "l2")(g))


def test_the_mask_hides_what_was_not_sent():
    observed = torch.tensor([[1.0, 0.0, -2.0]])
    g = torch.tensor([[1.0, 9.0, -2.0]])
    assert float(Matching(observed)(g)) > 0.1
    assert float(Matching(observed, mask=support(observed))(g)) < 1e-6
    assert Matching(observed.repeat(4, 1), mask=support(observed.repeat(4, 1))).of(slice(1, 3)).observed.shape == (2, 3)


def test_zero_gradients_give_numbers():
    value = Matching(torch.zeros(2, 5))(torch.zeros(2, 5, requires_grad=True))
    assert torch.isfinite(value).all()
    assert torch.isfinite(Matching(torch.full((1, 5), 1e-9))(torch.full((1, 5), 1e-9))).all()


def test_total_variation_is_the_mean_of_differences():
    x = torch.randn(2, 3, 3, 5, 4, dtype=torch.float64, generator=generator()).requires_grad_()

    def plain(x):
        return (x[..., 1:] - x[..., :-1]).abs().flatten(1).mean(1) + (
            x[..., 1:, :] - x[..., :-1, :]
        ).abs().flatten(1).mean(1)

    assert torch.allclose(total_variation(x), plain(x))
    weight = torch.tensor([1.0, -3.0], dtype=torch.float64)
    a, b = (torch.autograd.grad((f(x) * weight).sum(), x)[0] for f in (total_variation, plain))
    assert torch.allclose(a, b)


def test_adam_is_adam():
    x = torch.randn(3, 4, generator=generator())
    ours, theirs = x.clone(), x.clone().requires_grad_()
    mine, reference = Adam(ours), torch.optim.Adam([theirs], lr=0.1)
    for t in range(20):
        g = torch.randn(3, 4, generator=generator(t))
        mine.step(g, 0.1)
        theirs.grad = g
        reference.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def bowl(x):
    """A curved function with a hard valley and negative curvature, one value per row."""
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2).sum(1) / 100 + (1 - x[:, :-1]).square().sum(1)


@pytest.mark.parametrize("history", [100, 4], ids=["all pairs", "ring"])
def test_lbfgs_moves_every_trial_as_its_own_optimiser(history):
    start = torch.randn(5, 12, dtype=torch.float64, generator=generator(3))
    ours = LBFGS(start, history=history)

    def closure(x):
        x = x.detach().requires_grad_()
        loss = bowl(x)
        return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]

    path = []
    for _ in range(4):
        ours.step(closure)
        path.append(ours.x.clone())
    for k in range(5):
        x, count = start[k].clone().requires_grad_(), 0
        theirs = torch.optim.LBFGS([x], history_size=history)

        def one(x=x, theirs=theirs):
            nonlocal count
            count += 1
            theirs.zero_grad()
            loss = bowl(x[None]).sum()
            loss.backward()
            return loss

        for step in path:
            theirs.step(one)
            assert torch.allclose(step[k], x.detach(), atol=1e-9)
        assert count == int(ours.evaluations[k])


def test_lbfgs_of_some_trials_goes_on_as_before():
    start = torch.randn(4, 6, dtype=torch.float64, generator=generator(1))

    def closure(x):
        x = x.detach().requires_grad_()
        loss = bowl(x)
        return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]

    whole = LBFGS(start, history=5)
    whole.step(closure)
    part = whole.of(torch.tensor([1, 3]))
    whole.step(closure)
    part.step(closure)
    assert torch.allclose(part.x, whole.x[[1, 3]], atol=1e-12)


def test_a_trial_that_explodes_is_frozen_and_the_others_are_not():
    x = torch.tensor([[3.0], [2.0]])

    def evaluate(x):
        value = x[:, 0].square()
        broken = torch.stack([value[0] * torch.where(x[0, 0] < 2.5, torch.nan, 1.0), value[1]])
        return broken, broken

    found = adam(x, evaluate, 40, 0.2, schedule="constant")
    assert found.frozen.tolist() == [True, False]
    assert 2.5 <= float(found.x[0, 0]) <= 3
    assert abs(float(found.x[1, 0])) < 0.3
    assert math.isfinite(float(found.match[0]))
    assert found.evaluations < 80


def test_the_best_iterate_is_kept():
    seen = []

    def evaluate(x):
        value = (x[:, 0] - 1).abs()
        seen.append(float(value.detach()))
        return value, value

    found = adam(torch.tensor([[0.0]]), evaluate, 30, 0.3, schedule="constant")
    assert float(found.match) == min(seen)
    assert float((found.x[0, 0] - 1).abs()) == pytest.approx(min(seen), abs=1e-6)


def test_restarts_are_chosen_by_the_matching_loss_alone():
    objective, match = torch.tensor([0.0, 9, 9, 9, 9, 0]), torch.tensor([3.0, 1, 2, 1, 3, torch.inf])
    found = Found(torch.arange(6.0)[:, None], objective, match, 0, torch.zeros(6).bool())
    x, match = select(found, 3)  # trials: (restart, subject) with 2 subjects
    assert x[:, 0].tolist() == [2.0, 1.0]
    assert match.tolist() == [2.0, 1.0]


def test_chunks_cover_all_trials():
    for trials, each, budget in ((10, 3, 10), (7, 100, 10), (8, 1, 1000)):
        parts = chunks(trials, each, budget)
        assert [i for p in parts for i in range(trials)[p]] == list(range(trials))
        assert all((p.stop - p.start) * each <= max(budget, each) for p in parts)


@pytest.mark.parametrize("kind", INITS)
def test_starts(kind):
    x = start(kind, (2, 3, 1, 10, 10), generator())
    assert x.shape == (2, 3, 1, 10, 10)
    assert torch.equal(x, start(kind, (2, 3, 1, 10, 10), generator()))
    if kind == "patterned":
        assert torch.equal(x[..., :4, :4], x[..., 4:8, 4:8])
    with pytest.raises(UserError, match="init: unknown 'randm'"):
        start("randm", (1,), generator())


def test_values_that_are_checked_before_any_job_are_those_that_the_code_knows():
    for names, known in ((base.LabelRule, RULES), (base.Form, FORMS), (base.Match, MATCHES)):
        assert set(get_args(names)) == set(known)
    method = registry.describe("attack", "inverting_gradients")
    for name, value in (("init", "randm"), ("match", "masc"), ("label_rule", "min_rows"), ("schedule", "drop")):
        with pytest.raises(UserError, match=f"{name}: got '{value}': did you mean"):
            registry.check_parameters(method, {name: value}, "attacks.probe")
