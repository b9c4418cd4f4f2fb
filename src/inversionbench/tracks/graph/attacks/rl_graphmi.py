"""RL-GraphMI (survey 3.4): edges from hard labels of submitted graphs. Reconstruction.

Zhang, Liu, Huang, Wang, Lee, Chen, "Model Inversion Attacks Against Graph Neural Networks", IEEE TKDE 2023: the paper's
estimator, reward and policy network could not be read. The attacker knows features, labels of all nodes and about
how many edges rho there are; a query is one graph and answers with the labels of all nodes. With l(A) the share of
nodes whose label is wrong,

approach "gradient" (`_estimate`): projected descent on E l(B), B drawn pair by pair with chances a, from a uniform
    start, plus GraphMI's free terms; the gradient from answers alone, by the score function or antithetic differences.
approach "policy" (`_policy`): edges are added one by one to the empty graph, rho of them, by a policy that is learnt
    (advantage actor-critic); the reward of an edge is the fall of l less a price for joining unlike nodes. A
    pair's score is the share of the last rollouts that have it, weighted by their final label agreement.

draws: graphs per step of the estimate. width: of the smoothing in antithetic differences. parallel: rollouts at once;
horizon: edges between two updates of the policy. queries: all that may be asked; the search ends before. GraphMI's
auto-encoder needs weights, which are not granted, so pairs are scored by what was searched.

More label agreement is not more true edges. Measured (karate club, 2 targets, 10,000 queries): both approaches bring
l from 0.09 on the empty graph to about 0.01, random graphs have 0.3; AUROC 0.64 to 0.70 by the gradient, best at 2,500
queries, 0.60 to 0.64 by the policy; on the target that never saw an edge the same to 0.02, and same label has 0.72.
Antithetic differences 0.58 to 0.63.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, PositiveShare

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class RLGraphMI(Attack):
    """data: float (1, pairs), see `_edges.answer`; checkpoints at a quarter, a half and all of the queries."""

    id: ClassVar[str] = "rl_graphmi"
    level: ClassVar[str] = "LO"
    budget: ClassVar[tuple[str, ...]] = ("queries",)

    approach: Literal["gradient", "policy"] = "gradient"
    queries: Count = 10_000
    density: Positive = 1.0
    estimator: Literal["score", "antithetic"] = "score"
    draws: Count = 40
    width: PositiveShare = 0.2
    rate: Positive = 0.5
    alpha: NonNegative = 1e-3
    beta: NonNegative = 1e-3
    parallel: Count = 16
    horizon: Count = 13
    learning_rate: Positive = 0.02
    discount: PositiveShare = 0.9
    entropy: NonNegative = 0.01
    unlike: NonNegative = 0.01

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.tracks.graph.attacks import _edges, _estimate, _policy

        x, y, edges = knowledge.features, knowledge.labels, round(self.density * knowledge.edges)
        edges = max(1, min(edges, len(y) * (len(y) - 1) // 2))

        def search(twin: bool, rng: torch.Generator) -> tuple[Tensor, Tensor, list[tuple[int, Tensor]]]:
            def wrong(graphs: Tensor) -> Tensor:
                """l of graphs (k, n, n), float (k,)."""
                return (oracle.labels(graphs, twin=twin) != y).float().mean(1)

            walk = _estimate.descend if self.approach == "gradient" else _policy.explore
            held = walk(self, wrong, x, y, edges, rng)
            scores = held[-1][1]
            return scores, _edges.top(scores, edges), held

        return _edges.answer(search, rng)
