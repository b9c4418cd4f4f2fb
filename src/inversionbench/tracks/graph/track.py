"""The graph track: what a node classifier gives away of the edges that it was trained on.

target: a graph convolutional network, trained on a third of the nodes of a private graph, and its twin: the same
training on the same nodes without any edge. truth: the edges. The attacker knows all features and labels of the
nodes and how many edges there are, so the twin could be his own; what an attack finds through it is what features
and labels give away, and the headline is what it finds beyond that. Every attack of the track therefore runs twice,
with the same random numbers (`attacks._edges.answer`).

oracle levels: WB, the networks, to be asked about any graph; LO, labels of all nodes for a submitted graph, one query
a graph; BB-S, the released scores of nodes in the graph that the network is deployed on, one query a node.

scenario.model     {name: gcn, hidden, dropout}
scenario.training  recipe, see `core.recipe.Recipe`
scenario.protocol  {nodes: of the subgraph that each target is trained on and that is attacked, grown breadth-first from
                   a node of its own (0, the default: the whole graph)}
scenario.subjects  1: the unit is the target, so give several target seeds
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.levels import HOOKS
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.core.settings import check_value
from inversionbench.models._graph_names import check_model, recipe_of
from inversionbench.tracks.base import Track

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle


class Graph(Track):
    """Edges from node classifiers; module docstring."""

    id: ClassVar[str] = "graph"
    order = 7
    title = "Graphs"
    about = """A graph network classifies the nodes of a private graph. The attacker knows the nodes and asks which of
        them are joined. Similar nodes are joined more often: that is no leak of the model, so what counts is the gain
        over the same attack on a target that never saw an edge."""
    controls: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "never_saw_an_edge": {
            "label": "target that never saw an edge", "reach": "guess",
            "note": "the same attack on the same network, trained on the same nodes without any edge",
        },
    }  # fmt: skip
    headline: ClassVar[str] = "edge_gain"
    metrics = ("edge_gain", "edge_auc", "edge_ap", "edge_precision")
    modality = "graph"
    hooks = frozenset(HOOKS) - {"train_transform", "client_update", "aggregate"}

    def check(self, scenario: Scenario) -> None:
        check_model(scenario.model)
        recipe_of(scenario.training)
        for option, value in scenario.protocol.items():
            if option != "nodes":
                raise UserError(f"protocol: no option '{option}': {suggest(option, ['nodes'])}")
            check_value(value, "Whole", "protocol.nodes")
        if scenario.subjects != 1:
            raise UserError(f"subjects: expected 1, the graph of a target, got {scenario.subjects}; give target_seeds")

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        from inversionbench.tracks.graph.target import publish

        return Target(*publish(scenario, data, defense, seed, progress))

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        from inversionbench.tracks.graph.target import graph_oracle

        return graph_oracle(released, level, defense, seed)

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        from inversionbench.core.attack import Knowledge

        names = ("features", "labels", "edges", "classes", "defense")
        return Knowledge(**{name: released[name] for name in names})

    def utility_of(
        self, scenario: Scenario, target: Target, defense: Defense, data: Dataset, seed: int
    ) -> dict[str, Any]:
        from inversionbench.tracks.graph.target import utility

        return target.utility | utility(target.released, target.truth, defense, seed)

    def evaluate(
        self, scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset,
        evaluator: dict[str, Any], seed: int,
    ) -> Evaluation:
        from inversionbench.tracks.graph.evaluate import evaluate

        return evaluate(reconstruction, target.truth, seed)
