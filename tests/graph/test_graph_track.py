"""What the graph track publishes, keeps for itself, refuses and defends."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from graph_cells import TRACK, asked, attack, build, data, metrics, scenario, target
from sklearn.metrics import roc_auc_score

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.errors import UserError
from inversionbench.data.karate import Karate
from inversionbench.defenses.differential_privacy.edge_randomised_response import (
    EdgeRandomisedResponse,
    epsilon,
    noised,
)
from inversionbench.oracle.strict import served
from inversionbench.plan.params import Entry
from inversionbench.tracks.graph.evaluate import auc

GRAPHMI, POSTERIORS, LABELS_ONLY = attack("graphmi"), attack("posterior_similarity"), attack("rl_graphmi")


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return all(same(a[k], b[k]) for k in a) if isinstance(a, dict) else a == b


def test_no_torch_for_checking():
    code = (
        "import sys\nfrom inversionbench.core.scenario import Scenario\n"
        "from inversionbench.tracks import get_track\n"
        "get_track('graph').check(Scenario('s', 'graph', 'karate', {'name': 'gcn'}, subjects=1))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "gnc"}}, r"model\.name: unknown model 'gnc': did you mean 'gcn'"),
        ({"model": {"name": "gcn", "dropout": 1}}, r"model\.dropout: expected a number from 0 to below 1"),
        ({"training": {"flip": True}}, "'flip' is not for graphs"),
        ({"training": {"epochs": -1}}, r"training\.epochs"),
        ({"protocol": {"node": 3}}, "did you mean 'nodes'"),
        ({"protocol": {"nodes": 0.5}}, r"protocol\.nodes: expected a whole number"),
        ({"subjects": 2}, "subjects: expected 1"),
    ],
)
def test_bad_scenarios(change, message):
    with pytest.raises(UserError, match=message):
        TRACK.check(replace(scenario(), **change))


def test_the_club():
    club = data()
    edges = club.private.extra["adjacency"]
    assert edges.shape == (34, 34)
    assert edges.sum() == 2 * 78
    assert (edges == edges.T).all()
    assert not edges.diagonal().any()
    assert np.bincount(club.private.y).tolist() == [17, 17]
    assert len(club.public) == len(club.heldout) == len(club.evaluation) == 0
    assert build(Karate(), 5).private.y.tolist() == club.private.y.tolist()


def test_the_true_graph_is_not_released():
    released, truth = target().released, target().truth
    shapes = {name: tuple(t.shape) for name, t in released.items() if isinstance(t, torch.Tensor)}
    assert shapes == {"features": (34, 34), "labels": (34,), "model_logits": (34, 2), "twin_logits": (34, 2)}
    assert torch.equal(released["features"], torch.eye(34))
    assert released["edges"] == truth["adjacency"].sum() / 2 == 78


def test_the_network_needs_the_graph():
    """Test accuracy, 4 targets: 0.91 with the graph, 0.42 without; else there would be nothing to invert."""
    found = [target(seed).utility for seed in range(3)]
    with_graph, without = (np.mean([f[name] for f in found])
                           for name in ("accuracy_on_true_graph", "accuracy_without_edges"))
    assert with_graph > without + 0.25
    told = TRACK.utility_of(scenario(), target(), NONE, data(), 0)
    assert told["accuracy"] == pytest.approx(target().utility["accuracy_on_true_graph"], abs=1e-6)
    assert len(told["hits"]) == 34 - 34 // 3


def test_the_twin_never_saw_an_edge():
    """Another graph, the same twin."""
    other = target(0, EdgeRandomisedResponse(strength=0.5)).released
    assert same(other["twin"], target().released["twin"])
    assert not same(other["model"], target().released["model"])


def test_subgraphs_are_connected_parts_that_differ_between_targets():
    found = [TRACK.train_target(scenario(1, nodes=20), NONE, data(), seed, None) for seed in (0, 1)]
    for one in found:
        reached = torch.eye(20) + one.truth["adjacency"].float()
        assert (torch.linalg.matrix_power(reached.double(), 20)[0] > 0).all()
        assert one.released["edges"] == one.truth["adjacency"].sum() / 2
    assert not same(found[0].released["features"], found[1].released["features"])
    with pytest.raises(UserError, match=r"protocol\.nodes: .* has 34 private nodes, 40 were asked for"):
        TRACK.train_target(scenario(1, nodes=40), NONE, data(), 0, None)


@pytest.mark.parametrize("spoil", [lambda g: g.fill_(0.5), lambda g: g[0, 0].fill_(1), lambda g: g[0, 1, 0].fill_(1)],
                         ids=["weights", "loop", "direction"])  # fmt: skip
def test_the_label_oracle_takes_graphs_alone(spoil):
    oracle, _ = asked(LABELS_ONLY, epochs=1)
    graph = torch.zeros(1, 34, 34)
    assert oracle.labels(graph).shape == (1, 34)
    spoil(graph)
    with pytest.raises(ValueError, match=r"graphs|values"):
        oracle.labels(graph)
    assert oracle.ledger.queries == 1


def test_another_process_answers_for_target_and_twin_alike():
    here, _ = asked(LABELS_ONLY)
    graph = target().truth["adjacency"].float()[None]
    with served(lambda: asked(LABELS_ONLY)[0]) as there:
        for twin in (False, True):
            assert torch.equal(there.labels(graph, twin=twin), here.labels(graph, twin=twin))
        assert there.ledger.queries == here.ledger.queries == 1
    with served(lambda: asked(POSTERIORS)[0]) as there:
        nodes = torch.arange(34)
        assert torch.equal(there.scores(nodes), target().released["model_logits"].softmax(1))


def test_auc():
    rng = np.random.default_rng(0)
    edge, scores = rng.random(200) < 0.2, rng.integers(0, 9, 200).astype(float)
    assert auc(scores, edge) == pytest.approx(roc_auc_score(edge, scores))
    weights = rng.integers(0, 3, 200).astype(float)
    assert auc(scores, edge, weights) == pytest.approx(roc_auc_score(edge, scores, sample_weight=weights))


def test_randomised_response():
    graph = target().truth["adjacency"].float()
    rng = lambda: torch.Generator().manual_seed(1)
    weak, strong = (noised(graph, share, rng()) for share in (0.1, 0.4))
    for out in (weak, strong):
        assert torch.equal(out, out.mT)
        assert not out.diagonal().any()
        assert set(out.unique().tolist()) <= {0.0, 1.0}
    flipped = [(out != graph).sum().item() / 2 for out in (weak, strong)]
    for count, share in zip(flipped, (0.1, 0.4)):  # binomial, 561 pairs, four standard deviations
        assert abs(count - 561 * share / 2) < 4 * (561 * share / 2) ** 0.5
    assert ((strong != graph) | (weak == graph)).all()  # the same coins: more noise flips all that less noise flips
    assert epsilon(2 / (1 + np.exp(4.0))) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="adjacency"):
        EdgeRandomisedResponse(strength=0.5).training_set(torch.zeros(3, 4), torch.zeros(3), rng())


def test_a_random_graph_says_nothing_of_the_true_one():
    """Deployed scores, gain 0.25 without defense (standard error 0.012), 0.0 at epsilon 0 (0.03); 3 targets each."""
    random = EdgeRandomisedResponse(strength=1.0)
    assert metrics(POSTERIORS, defense=random)["edge_gain"] < metrics(POSTERIORS)["edge_gain"] - 0.1
    told = TRACK.evaluate(scenario(), *_answered(random), data(), {}, 0).facts["guarantee"]
    assert told.startswith("epsilon 0, delta 0; edge level")
    assert target(0, random).utility["epsilon"] == 0


def _answered(defense):
    from graph_cells import reconstruct

    return reconstruct(POSTERIORS, 0, defense)[0], target(0, defense)


def test_dp_sgd_acts_and_says_that_edges_have_no_guarantee():
    private = registry.get("defense", "dp_sgd")(strength=1.0)
    found = target(0, private, 3)
    assert not same(found.released["model"], target(0, NONE, 3).released["model"])
    assert "NOT PRIVATE for edges" in found.truth["guarantee"]
    assert found.utility["epsilon_total"] > 5  # three steps on everything, sigma 1


ACTING = [name for name in registry.methods("defense") if Entry(name, "defense", name).suits(TRACK, scenario())]


@pytest.mark.parametrize("name", ACTING)
def test_strength_0_is_no_defense_bit_for_bit(name):
    done, plain = target(0, registry.get("defense", name)(strength=0.0), 3), target(0, NONE, 3)
    for part in ("model", "twin", "model_logits", "twin_logits", "features", "labels"):
        assert same(done.released[part], plain.released[part])
