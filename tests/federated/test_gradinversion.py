"""GradInversion: the batch-norm prior, the group of seeds, labels by the smallest entry."""

from __future__ import annotations

import pytest
import torch
from inversion_cells import attack, oracle_of, psnr, scenario, truth

from inversionbench.core.errors import AccessDenied
from inversionbench.gradients import composed as _composed
from inversionbench.gradients.consensus import consensus
from inversionbench.gradients.layerwise import LayerNorms
from inversionbench.gradients.layout import layout_of
from inversionbench.gradients.problem import read, recovered
from inversionbench.gradients.statistics import Prior, Statistics, distance, granted

NORMED = {"name": "convnet", "norm": "batch", "widths": [4, 8]}
SHARED = {"batch_size": 4, "subjects": 2, "bn": "train_shared", "classes": "distinct"}


def test_the_prior_is_zero_at_the_truth():
    s = scenario(NORMED, **SHARED)
    problem = read(oracle_of(s))
    x = problem.model.front(truth(s)[0])
    prior = Prior(problem, 1, (10.0,))
    assert prior(x).max() < 1e-4
    assert (prior(x.flip(0)) > 1e-2).all()


def test_the_prior_equals_its_formula_one_trial_at_a_time():
    s = scenario(NORMED, **SHARED)
    problem = read(oracle_of(s))
    x = torch.randn(problem.shape, generator=torch.Generator().manual_seed(0))
    own, target = Statistics(problem.model)(x), granted(problem)
    first = x[1]
    layers = list(problem.model.body.children())
    conv = layers[0](first)
    var, mean = torch.var_mean(conv, dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(own[0][0][1], mean)
    torch.testing.assert_close(own[0][1][1], var)
    each = [distance([o], [t], ())[1] for o, t in zip(own, target)]
    torch.testing.assert_close(distance(own, target, (10.0,))[1], 10 * each[0] + each[1])


@pytest.mark.parametrize(("model", "bn"), [("convnet", "eval_public"), (NORMED, "train_private")])
def test_without_statistics_it_refuses(model, bn):
    s = scenario(model, 2, batch_size=2, bn=bn)
    with pytest.raises(AccessDenied, match="bn: 0"):
        attack("gradinversion", s, steps=1)
    assert attack("gradinversion", s, steps=2, seeds=2, bn=0.0).notes["statistics"] == "none"


def test_running_statistics_serve_where_the_client_shares_none():
    s = scenario(NORMED, 2, batch_size=2, bn="eval_public")
    assert attack("gradinversion", s, steps=2, seeds=2).notes["statistics"] == "running"
    assert attack("gradinversion", scenario(NORMED, **SHARED), steps=2, seeds=2).notes["statistics"] == "client"


def test_norms_per_tensor_are_not_squared():
    layout = layout_of({"a": (2,), "b": (2,)})
    observed = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert LayerNorms(observed, layout)(torch.tensor([[3.0, 4.0, 1.0, 7.0]])).item() == 11


def test_consensus_registers_before_it_averages():
    rng = torch.Generator().manual_seed(0)
    base = torch.nn.functional.avg_pool2d(torch.randn(1, 1, 1, 26, 26, generator=rng)[0], 5, 1)[None]
    seeds = torch.stack([base[..., 3:19, 3:19]] * 4 + [base[..., 4:20, 1:17]])
    exact = base[..., 3:19, 3:19]
    plain, registered = consensus(seeds), consensus(seeds, 3)
    torch.testing.assert_close(plain, seeds.mean(0))
    inner = (..., slice(3, -3), slice(3, -3))
    assert (registered - exact)[inner].abs().max() < 1e-5 < (plain - exact)[inner].abs().max()


def spread(monkeypatch, s, **params):
    """Variance over seeds at the end, and the run."""
    seen = []
    plain = _composed.answer

    def keep(problem, found, *rest):
        seen.append(found.x.unflatten(0, (-1, problem.clients)).var(0).mean().item())
        return plain(problem, found, *rest)

    monkeypatch.setattr(_composed, "answer", keep)
    result = attack("gradinversion", s, seeds=3, bn=0.0, **params)
    return seen[0], result


def test_the_group_brings_the_seeds_together(monkeypatch):
    s = scenario(batch_size=1, subjects=2)
    alone, _ = spread(monkeypatch, s, steps=60, group=0.0, period=10)
    together, result = spread(monkeypatch, s, steps=60, group=0.1, period=10)
    assert together < alone
    assert result.notes["restarts"] == 3


def test_shared_statistics_help():
    s = scenario(NORMED, **SHARED)
    with_prior, without = (attack("gradinversion", s, steps=60, seeds=2, tv=1e-3, bn=bn) for bn in (0.1, 0.0))
    assert psnr(s, with_prior) > psnr(s, without)


def test_smallest_entries_find_distinct_labels_and_no_repeats():
    s = scenario("convnet", 4, batch_size=6, classes="distinct", labels="hidden")
    y = truth(s)[1]
    assert torch.equal(recovered(read(oracle_of(s)), "min_row", torch.Generator()), y.sort(dim=1).values)
    s = scenario("convnet", 4, batch_size=8, labels="hidden")
    rows = attack("gradinversion", s, steps=1, seeds=2, bn=0.0).labels
    assert all(len(row.unique()) == 8 for row in rows)  # whatever the truth repeats
