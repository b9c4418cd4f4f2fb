"""Training and publishing a target of the graph track, and its oracles.

    private graph ── subgraph of `nodes` ──▶ A, X, y ── H1 on A ──▶ A' ── H3, H4, H5 ──▶ target, deployed on A'
                                             (again, without any edge)             ──▶ twin
    a third of the nodes trains; the others are the test set

The true graph stays in `truth`; of the graph that the target is deployed on only the network's answers are
published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.defense import NONE, Defense
from inversionbench.core.errors import UserError
from inversionbench.core.seeds import draw_seed, spawn, stream
from inversionbench.data._graphs import grow
from inversionbench.models import graph
from inversionbench.models._graph_names import options_of, recipe_of
from inversionbench.oracle.base import InputSpec, Ledger, Oracle
from inversionbench.oracle.classifier import WhiteBox
from inversionbench.training.loop import evaluate_classifier, train_epochs

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress, Scenario
    from inversionbench.data.base import Dataset

NEIGHBOURS = 12  # of a node that a subgraph follows
CHUNK = 64  # graphs evaluated at once
NODES = "for a training node's own term of the loss; an edge enters the terms of all around it: NOT PRIVATE for edges"


def draw(data: Dataset, nodes: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Adjacency float (n, n), features (n, d) and labels (n,) of a part of the private graph, or of it all."""
    edges, total = np.asarray(data.private.extra["adjacency"]), len(data.private)
    if nodes > total:
        raise UserError(f"protocol.nodes: '{data.name}' has {total} private nodes, {nodes} were asked for")
    rows = grow(edges, np.ones(total, bool), nodes, NEIGHBOURS, rng) if nodes else np.arange(total)
    return torch.from_numpy(edges[np.ix_(rows, rows)]).float(), data.private.tensor(rows), data.private.labels(rows)


def publish(
    scenario: Scenario, data: Dataset, defense: Defense, seed: int, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Train target and twin; what is released, what is true, and what of the utility is known now."""
    numbers, rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    true, x, y = draw(data, scenario.protocol.get("nodes", 0), numbers)
    training = torch.from_numpy(numbers.permutation(len(y)) < len(y) // 3)
    kept, _ = defense.training_set(true, y, spawn(rng))
    trained, own = training.nonzero()[:, 0], draw_seed(rng)
    state: dict[str, Any] = {"features": x, "labels": y, "edges": int(true.sum()) // 2, "classes": data.classes,
             "options": options_of(scenario.model)}  # fmt: skip
    for name, edges in (("model", kept), ("twin", torch.zeros_like(kept))):
        network = train(scenario, state, trained, edges, defense, own, progress)
        state[name] = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
        with torch.no_grad():
            state[f"{name}_logits"] = network(edges[None])[0]
    told = statement(scenario, state, defense)
    state["defense"] = defense.public_knowledge() | ({"guarantee": told} if told else {})
    network = load(state)
    with torch.no_grad():
        on_true = network(true[None])[0]
    found = {
        "train_accuracy": accuracy(state["model_logits"], y, training),
        "accuracy_on_true_graph": accuracy(on_true, y, ~training),
        "accuracy_without_edges": accuracy(state["twin_logits"], y, ~training),
        **defense.guarantee(1.0, recipe_of(scenario.training).epochs),
    }
    truth = {"adjacency": true.bool(), "training": training, "guarantee": told,
             "influence": influence(network, true, y)}  # fmt: skip
    return state, truth, found


def train(
    scenario: Scenario, state: Mapping[str, Any], trained: Tensor, edges: Tensor, defense: Defense, seed: int,
    progress: Progress | None,
) -> nn.Module:
    """One network on one graph, float (n, n); H1 has acted before. trained: numbers of the training nodes. The same
    seed gives the same initial weights and dropout."""
    x, y, classes, options = (state[name] for name in ("features", "labels", "classes", "options"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = defense.build_model(lambda: graph.GCN(x, options["hidden"], options["dropout"], classes))
        model = graph.OnGraph(network, edges).train()
        train_epochs(model, trained, y[trained], classes, recipe_of(scenario.training), defense,
                     stream(seed, "order"), stream(seed, "defense"), progress, scenario.name)  # fmt: skip
    return network.eval()


def load(state: Mapping[str, Any], defense: Defense = NONE, name: str = "model") -> nn.Module:
    """The target, or its "twin", from what was released."""
    return graph.load(state[name], state["features"], state["options"], state["classes"], defense)


def statement(scenario: Scenario, state: Mapping[str, Any], defense: Defense) -> str:
    """What the defense guarantees, in words: every epoch is one step on the whole graph, and there is one training."""
    parameters = sum(t.numel() for t in state["model"].values())
    told = defense.statements(1.0, recipe_of(scenario.training).epochs, parameters, 1)
    return "; ".join([*told, *([NODES] if told and "gradient" in defense.hooks else [])])


def accuracy(logits: Tensor, y: Tensor, nodes: Tensor) -> float:
    return (logits.argmax(1) == y)[nodes].float().mean().item()


def influence(network: nn.Module, true: Tensor, y: Tensor) -> Tensor:
    """How much the log likelihood of all labels falls when an edge is removed, float32 (edges,), in the order of
    `true.tril().nonzero()`."""
    def likelihood(graphs: Tensor) -> Tensor:
        share = network(graphs).log_softmax(2)
        return share.gather(2, y.expand(len(graphs), -1)[..., None]).sum((1, 2))

    pairs = true.tril().nonzero()
    out = []
    with torch.no_grad():
        whole = likelihood(true[None])
        for part in pairs.split(CHUNK):
            without, each = true.repeat(len(part), 1, 1), torch.arange(len(part))
            without[each, part[:, 0], part[:, 1]] = without[each, part[:, 1], part[:, 0]] = 0
            out.append(whole - likelihood(without))
    return torch.cat(out)


def utility(released: Mapping[str, Any], truth: Mapping[str, Tensor], defense: Defense, seed: int) -> dict[str, Any]:
    """accuracy in [0, 1], nll in nats, ece and hits of the deployed answers on the nodes that were not trained on."""
    answers, test = nn.Embedding.from_pretrained(released["model_logits"]), (~truth["training"]).nonzero()[:, 0]
    rng = torch.Generator().manual_seed(seed)
    return evaluate_classifier(answers, test, released["labels"][test], lambda logits: defense.release(logits, rng),
                               defense.keeps_labels)  # fmt: skip


def graph_oracle(released: Mapping[str, Any], level: str, defense: Defense, seed: int = 0) -> Oracle:
    """The oracle of one level (see `track`); `twin=True` asks the twin, whose answers are no attacker's cost.

    WB: module(). LO: labels(graphs) of float32 (graphs, n, n), symmetric, of zeros and ones, with no loop ->
    int64 (graphs, n). BB-S: scores(nodes) of int64 (nodes,) -> released scores (nodes, classes).
    """
    ledger, free, rng = Ledger(), Ledger(), torch.Generator().manual_seed(seed)
    networks = [load(released, defense, name) for name in ("model", "twin")]
    n, classes = len(released["labels"]), released["classes"]
    spec = InputSpec((), 0, n - 1, "int64") if level == "BB-S" else InputSpec((n, n))

    def module(twin: bool = False) -> WhiteBox:
        return WhiteBox(networks[twin], free if twin else ledger)

    def labels(x: Tensor, phase: str = "search", twin: bool = False) -> Tensor:
        check_graphs(spec, x)
        (free if twin else ledger).charge("labels", len(x), phase)
        with torch.inference_mode():
            logits = torch.cat([networks[twin](part) for part in x.split(CHUNK)])
        if "release" in defense.hooks and not defense.keeps_labels:
            logits = defense.release(logits.flatten(0, 1), rng).view_as(logits)
        return logits.argmax(2).clone()

    def scores(x: Tensor, phase: str = "search", twin: bool = False) -> Tensor:
        spec.check(x)
        (free if twin else ledger).charge("scores", len(x), phase)
        return defense.release(released["twin_logits" if twin else "model_logits"][x], rng)

    calls: dict[str, dict[str, Any]] = {"WB": {"module": module}, "LO": {"labels": labels}, "BB-S": {"scores": scores}}
    return Oracle(level, calls[level], ledger, spec, classes)


def check_graphs(spec: InputSpec, x: Tensor) -> None:
    """Refuse what is no graph: weights between 0 and 1, directions, loops."""
    spec.check(x)
    if not ((x == 0) | (x == 1)).all() or not torch.equal(x, x.mT) or x.diagonal(dim1=1, dim2=2).any():
        raise ValueError("expected graphs: adjacency of zeros and ones, symmetric, with a diagonal of zeros")
