"""Edges from graph networks: each attack against its controls, and its parts against plain loops."""

from __future__ import annotations

import pytest
import torch
from graph_cells import SEEDS, asked, attack, metrics, reconstruct, target
from torch import nn

from inversionbench.core.errors import AccessDenied
from inversionbench.models.graph import GCN
from inversionbench.tracks.graph.attacks import _edges, _estimate, _policy

FEATURES, LABELS = attack("node_similarity", of="features"), attack("node_similarity", of="labels")
GRAPHMI, RELAXED = attack("graphmi"), attack("graphmi", auto_encoder=False)
POSTERIORS = attack("posterior_similarity")
GRADIENT = attack("rl_graphmi", queries=2400, draws=40)
POLICY = attack("rl_graphmi", approach="policy", queries=6300)

# attack, its control, by how much in AUROC
ROWS = [
    (GRAPHMI, FEATURES, 0.12),  # 0.723 and 0.500, standard error 0.01 over 3 targets
    (GRAPHMI, RELAXED, 0.05),  # 0.613, 0.010: the auto-encoder adds it
    (POSTERIORS, LABELS, 0.02),  # 0.771 and 0.717, 0.005
    (GRADIENT, FEATURES, 0.08),  # 0.69
]


@pytest.mark.parametrize(("method", "control", "margin"), ROWS, ids=lambda v: getattr(v, "id", ""))
def test_beats_its_control(method, control, margin):
    assert metrics(method)["edge_auc"] > metrics(control)["edge_auc"] + margin


def test_the_gain_is_over_a_target_that_never_saw_an_edge():
    """Deployed scores: gain 0.25, standard error 0.012. Controls ask nothing and gain nothing."""
    found = metrics(POSTERIORS)
    assert found["edge_gain"] == pytest.approx(found["edge_auc"] - found["twin"], abs=1e-6)
    assert found["edge_gain"] > 0.12
    for control in (FEATURES, LABELS):
        assert metrics(control)["edge_gain"] == 0
        assert reconstruct(control)[1].ledger.queries == 0


def test_an_untrained_target_gives_nothing():
    """A true graph that leaks by another way would stay. AUROC 0.53 untrained, 0.72 trained; half way 0.63."""
    assert metrics(GRAPHMI, epochs=0)["edge_auc"] < 0.63


@pytest.mark.parametrize(("method", "queries", "passes"),
                         [(GRAPHMI, 0, 121), (RELAXED, 0, 120), (POSTERIORS, 34, 0), (GRADIENT, 2400, 0),
                          (POLICY, 5 * 16 * 78 + 1, 0)], ids=repr)  # fmt: skip
def test_what_the_target_was_asked_is_counted_and_the_twin_is_not(method, queries, passes):
    answer, oracle, knowledge = reconstruct(method)
    assert (oracle.ledger.queries, oracle.ledger.passes) == (queries, passes)
    assert knowledge.used <= {"features", "labels", "edges"}
    assert answer.problem() == ""
    assert answer.labels.sum() == 78
    assert not torch.equal(answer.data, answer.notes["twin"])


@pytest.mark.parametrize("method", [GRAPHMI, POSTERIORS, GRADIENT], ids=repr)
def test_same_seed_same_answer(method):
    oracle, knowledge = asked(method)
    again = method.run(oracle, knowledge, torch.Generator().manual_seed(0))
    assert torch.equal(again.data, reconstruct(method)[0].data)
    assert torch.equal(again.notes["twin"], reconstruct(method)[0].notes["twin"])


@pytest.mark.parametrize(("method", "call"), [(GRAPHMI, "labels"), (GRADIENT, "module"), (GRADIENT, "scores"),
                                              (POSTERIORS, "module")])  # fmt: skip
def test_other_calls_are_denied(method, call):
    with pytest.raises(AccessDenied):
        getattr(asked(method)[0], call)


def wrong_of(seed=0):
    """l of graphs on one target."""
    oracle, knowledge = asked(GRADIENT, seed)
    return (lambda graphs: (oracle.labels(graphs) != knowledge.labels).float().mean(1)), knowledge


def random_graphs(count, edges=78, n=34):
    rng = torch.Generator().manual_seed(9)
    drawn = torch.rand(count, n * (n - 1) // 2, generator=rng).topk(edges, dim=1).indices
    return _edges.adjacency(torch.zeros(count, n * (n - 1) // 2).scatter_(1, drawn, 1.0), n)


def test_labels_of_random_graphs_are_wrong_and_those_of_found_graphs_right():
    """Share of wrong labels, 3 targets: random 0.30, by the gradient 0.01, by the policy 0.02."""
    for method, seeds in ((GRADIENT, SEEDS), (POLICY, SEEDS[:1])):
        for seed in seeds:
            wrong, _ = wrong_of(seed)
            found = _edges.adjacency(reconstruct(method, seed)[0].labels.float(), 34)
            assert float(wrong(found)) < float(wrong(random_graphs(50)).mean()) - 0.1


def test_without_a_target_that_uses_the_graph_labels_say_nothing():
    """Constant answers: AUROC 0.5 but for chance (standard error over draws of this size 0.02)."""
    _, knowledge = wrong_of()
    held = _estimate.descend(attack("rl_graphmi", queries=2400, alpha=0.0), lambda g: torch.full((len(g),), 0.3),
                             knowledge.features, knowledge.labels, 78, torch.Generator().manual_seed(0))  # fmt: skip
    assert held[-1][1].std() < 1e-6


def test_more_draws_point_closer_to_the_exact_gradient():
    """A loss that is linear in the edges has its weights as gradient, scaled where the estimate is damped."""
    rng = torch.Generator().manual_seed(3)
    weights, a = torch.randn(45, generator=rng), torch.full((45,), 0.3)
    wrong = lambda graphs: graphs[:, _edges.pairs(10)[0], _edges.pairs(10)[1]] @ weights
    cosine = nn.functional.cosine_similarity
    for estimate in (lambda k: _estimate.by_score(wrong, a, 10, k, None, rng)[0],
                     lambda k: _estimate.by_differences(wrong, a, 10, k, 0.2, rng)):  # fmt: skip
        few, many = (cosine(estimate(draws), weights, dim=0) for draws in (20, 4000))
        assert many > 0.85
        assert many > few


def test_the_policy_never_adds_what_is_there():
    rng = torch.Generator().manual_seed(0)
    policy, graphs = _policy.Policy(4), torch.zeros(3, 4, 4)
    for edges in range(1, 7):  # up to the complete graph
        h = policy.embed(graphs, torch.eye(4))
        u, v, chance, _ = policy.choose(h, graphs, rng)
        assert (u != v).all()
        assert not graphs[torch.arange(3), u, v].any()
        assert (chance <= 0).all()
        graphs[torch.arange(3), u, v] = graphs[torch.arange(3), v, u] = 1
        assert graphs.sum() == 6 * edges


def test_projection():
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(50, generator=rng)
    inside = _edges.project(a, 100.0)
    assert torch.equal(inside, a.clamp(0, 1))
    cut = _edges.project(a, 5.0)
    assert float(cut.sum()) == pytest.approx(5, abs=1e-4)
    assert (cut[a.argsort()].diff() >= 0).all()


def test_smoothness_is_the_sum_over_edges():
    rng = torch.Generator().manual_seed(0)
    x, n = torch.randn(6, 3, generator=rng), 6
    a = (torch.rand(15, generator=rng) < 0.6).float()
    graph = _edges.adjacency(a, n)
    degrees = graph.sum(1) + _edges.ISOLATED
    expected = sum(0.5 * (x[i] / degrees[i].sqrt() - x[j] / degrees[j].sqrt()).square().sum()
                   for i in range(n) for j in range(n) if graph[i, j])  # fmt: skip
    assert torch.allclose(_edges.smoothness(graph, x @ x.T), expected, atol=1e-4)


def test_the_network_against_loops():
    torch.manual_seed(0)
    x, n = torch.randn(5, 3), 5
    network = GCN(x, 4, 0.5, 2).eval()
    graph = _edges.adjacency((torch.rand(10) < 0.5).float(), n)
    degrees = graph.sum(1) + 1

    def spread(h):
        return torch.stack([sum(h[j] / (degrees[i] * degrees[j]).sqrt() for j in range(n) if graph[i, j] or i == j)
                            for i in range(n)])  # fmt: skip

    hidden = (spread(network.layer(x)) + network.layer_bias).relu()
    assert torch.allclose(network(graph[None])[0], spread(network.fc(hidden)) + network.fc_bias, atol=1e-6)
    assert torch.allclose(network.trace(graph[None]).features[0], hidden, atol=1e-6)


def test_influence_is_the_fall_of_the_likelihood():
    truth, released = target().truth, target().released
    from inversionbench.tracks.graph.target import load

    network, true = load(released), truth["adjacency"].float()
    pair = true.tril().nonzero()[17]
    without = true.clone()
    without[pair[0], pair[1]] = without[pair[1], pair[0]] = 0
    with torch.no_grad():
        log = [network(g[None])[0].log_softmax(1).gather(1, released["labels"][:, None]).sum() for g in (true, without)]
    assert torch.allclose(truth["influence"][17], log[0] - log[1], atol=1e-4)
