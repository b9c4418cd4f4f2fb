"""MI-Face, BREP-MI, random search: what their cards say must hold, on networks where it can be computed."""

from __future__ import annotations

import pytest
import torch
from classifier_cells import data, generator, knowledge, oracle, prior, run, scenario, target
from torch import nn

from inversionbench.core.attack import Knowledge
from inversionbench.core.errors import AccessDenied, BudgetExceeded
from inversionbench.core.recipe import Recipe
from inversionbench.latent.losses import IDENTITY
from inversionbench.models.classifiers import build
from inversionbench.oracle.base import InputSpec
from inversionbench.oracle.classifier import classifier_oracle
from inversionbench.tracks.classifier.attacks.brep_mi import BrepMi
from inversionbench.tracks.classifier.attacks.mi_face import MiFace, by_passes
from inversionbench.tracks.classifier.attacks.random_search import RandomSearch
from inversionbench.tracks.classifier.track import network
from inversionbench.training.loop import fit


def softmax_regression():
    """A linear classifier of the private faces, and an oracle for each level."""
    private = data().private
    x, y = private.images(), private.labels()
    recipe = Recipe(epochs=15, rate=5e-3, weight_decay=1e-2)
    return fit(lambda: build({"name": "softmax"}, data().shape, data().classes), x, y, data().classes, recipe)


def faces_of(net, attack, level, targets=None):
    asked = classifier_oracle(net, level, InputSpec(data().shape), data().classes)
    targets = torch.arange(data().classes) if targets is None else targets
    return attack.run(asked, Knowledge(targets=targets, shape=data().shape), generator()), asked


def test_mi_face_on_softmax_regression_follows_its_closed_form():
    """One step goes exactly along W_y - sum_j p_j W_j, all of them nearly along W_y - mean_j W_j; what comes
    out resembles the mean photograph of its own class more than that of any other."""
    net, classes = softmax_regression(), data().classes
    w, y = net.head.weight.detach(), torch.arange(classes)
    slope = by_passes(classifier_oracle(net, "WB", InputSpec(data().shape), classes).module())
    start = torch.full((classes, *data().shape), 0.5)
    with torch.no_grad():
        expected = w - net(start).softmax(1) @ w
    step = -slope(start, y)[1].flatten(1)
    assert torch.cosine_similarity(step, expected, dim=1).min() > 0.9999
    attack = MiFace(iterations=300, rate=5.0, start="grey", clamp=False)
    best, cost, _ = attack.descend(start, y, slope)
    assert cost.max() <= 0.01
    assert torch.cosine_similarity((best - start).flatten(1), w - w.mean(0), dim=1).mean() > 0.8
    x, who = data().private.images(), data().private.labels()
    means = torch.stack([x[who == c].mean(0).flatten() for c in range(classes)])
    correlation = torch.corrcoef(torch.cat([best.flatten(1), means]))[:classes, classes:]
    assert (correlation.argmax(1) == y).float().mean() >= 0.8


def test_mi_face_estimates_the_same_gradient_from_scores():
    """Coordinate differences against automatic differentiation; random directions point the same way."""
    net = softmax_regression()
    x, y = torch.full((2, *data().shape), 0.4), torch.tensor([0, 3])
    spec = InputSpec(data().shape)
    cost, exact = by_passes(classifier_oracle(net, "WB", spec, data().classes).module())(x, y)
    for directions, least in ((0, 0.99), (200, 0.3)):
        attack = MiFace(access="BB-S", difference=0.02, directions=directions)
        asked = classifier_oracle(net, "BB-S", spec, data().classes)
        same, estimate = attack._by_scores(asked, generator())(x, y)
        assert torch.allclose(cost, same, atol=1e-6)
        assert torch.cosine_similarity(exact.flatten(1), estimate.flatten(1), dim=1).min() > least
        assert asked.ledger.queries == 2 * (1 + (2 * directions or x[0].numel()))


def test_mi_face_stops_by_goal_and_by_window():
    net = softmax_regression()
    answer, asked = faces_of(net, MiFace(iterations=400, rate=1.0, start="grey", goal=0.5), "WB")
    assert (answer.scores >= 0.5).float().mean() > 0.8  # one at low confidence has next to no gradient
    assert asked.ledger.passes < 400 * data().classes
    stuck = MiFace(iterations=400, rate=0.0, start="grey", patience=7)
    assert faces_of(net, stuck, "WB")[1].ledger.passes == 8 * data().classes


# ---- brep_mi


def test_brep_mi_pays_for_every_label():
    """Exactly sphere + 1 queries per row and iteration, rejected steps included; nothing for printing."""
    attack = BrepMi(sphere=8, limit=5, restarts=2)
    _, asked = run(attack)
    phases = asked.ledger.by_phase()
    assert phases["search"] == scenario().subjects * 2 * 5 * (8 + 1)
    assert set(phases) == {"init", "search"}
    assert phases["init"] % attack.start_batch == 0


def test_brep_mi_asks_for_labels_only():
    attack = BrepMi(limit=1)
    scored = classifier_oracle(network(target().released), "BB-S", InputSpec(data().shape), data().classes)
    with pytest.raises(AccessDenied):
        attack.run(scored, knowledge(), generator())
    with pytest.raises(BudgetExceeded):
        attack.run(oracle(attack, budget=300), knowledge(), generator())


def test_brep_mi_counts_a_class_that_never_shows_up_as_failed():
    class Never(nn.Module):
        def forward(self, x):
            return torch.eye(3)[torch.zeros(len(x), dtype=torch.long)] + 0 * x.flatten(1)[:, :1]

        def parameters(self, recurse=True):
            return iter([nn.Parameter(torch.zeros(1))])

    asked = classifier_oracle(Never(), "LO", InputSpec(data().shape), 3)
    attack = BrepMi(limit=2, start_cap=300)
    answer = attack.run(asked, knowledge(targets=torch.tensor([0, 2])), generator())
    assert answer.failed.tolist() == [False, True]
    assert asked.ledger.by_phase()["init"] == 600
    assert answer.notes["initialised"] == 1


def test_repulsion_points_up_the_margin_and_better_with_more_points():
    """Mean cosine with the white-box gradient of o_y - max o_j, where 10 to 90 % of the sphere is outside."""
    net, p = network(target().released), prior()
    attack = BrepMi()
    z, y, radius = _near_the_boundary(net, p)
    point = z.clone().requires_grad_(True)
    (way,) = torch.autograd.grad(-IDENTITY["margin"](net(p.generator(point)), y).sum(), point)
    cosines = []
    for n in (8, 128):
        asked = oracle(attack)
        chosen = BrepMi(sphere=n)
        found = torch.stack([chosen.direction(asked, p, z, y, radius, generator(s))[0] for s in range(3)])
        cosines.append(torch.cosine_similarity(found, way.expand_as(found), dim=2).mean().item())
    assert cosines[0] > 0.05
    assert cosines[1] > 1.5 * cosines[0]


def _near_the_boundary(net, p):
    """Latents whose sphere is partly outside their class, with the class and the radius."""
    z = p.sample(200, generator(3)).clamp(-1.5, 1.5)
    with torch.no_grad():
        y = net(p.generator(z)).argmax(1)
        u = torch.randn(200, 64, p.z_dim, generator=generator(4))
        u = u / u.norm(dim=2, keepdim=True)
        radius = torch.full((200,), 0.2 * p.z_dim**0.5)
        around = net(p.generator((z[:, None] + radius[:, None, None] * u).flatten(0, 1))).argmax(1)
    outside = (around.view(200, 64) != y[:, None]).float().mean(1)
    keep = (outside > 0.1) & (outside < 0.9)
    assert keep.sum() > 20
    return z[keep], y[keep], radius[keep]


# ---- random search


def test_random_search_keeps_the_best_score_and_the_first_of_ties():
    answer, asked = run(RandomSearch(draws=7, restarts=2))
    assert asked.ledger.queries == 7 * 2 * scenario().subjects
    net = network(target().released)
    with torch.no_grad():
        own = net(answer.data).softmax(1).gather(1, answer.labels[:, None])
    assert torch.allclose(own, answer.scores, atol=1e-5)
    more = run(RandomSearch(draws=40, restarts=2))[0]
    assert more.scores.mean() > answer.scores.mean()


def test_shared_draws_are_better_at_the_same_price():
    own, shared = (run(RandomSearch(draws=15, restarts=2, shared=s)) for s in (False, True))
    assert own[1].ledger.queries == shared[1].ledger.queries
    assert shared[0].scores.mean() > own[0].scores.mean()
