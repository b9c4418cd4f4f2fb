"""GraphMI (survey 3.4): the training edges of a graph network, with its weights at hand.

Zhang, Liu, Huang, Wang, Lu, Liu, Chen, "GraphMI: Extracting Private Graph Data from Graph Neural Networks", IJCAI 2021.
The attacker knows features X, labels y of all nodes and about how many edges rho there are. From a = 0, every pair
of nodes a number in [0, 1],

    L(a) = mean over nodes of -log f(A(a), X)_y + alpha tr(X^T L X) + beta ||a||,    a <- P(a - eta dL/da)

with P the projection onto [0, 1]^m and a sum of at most rho; the smoothness term from half of the steps on, as in the
code. Then the graph auto-encoder: nodes are embedded by the target's own first layer on the last A(a), a pair is scored
by the cosine of its two embeddings (the code), or the sigmoid of their product (the paper). Last, random sampling: of
`samples` graphs of rho edges each, drawn by the scores, the one with the least L is claimed. Cosines lie close,
so that these graphs are nearly random ones: of 300 papers of Cora 1.5 % of the claimed edges are right, by chance 1.4.

auto_encoder: False scores pairs by a itself. density: rho over the true number of edges.

One pass a step, and one for each sampled graph. Deviations: ||a|| is the l2 norm of the code (the paper's text could
not be read for it); AUC is of the scores, as in the code, where the sampling is commented out; the first layer's
embedding of a node without any score (zeros) is like no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox


@dataclass(frozen=True)
class GraphMI(Attack):
    """data: float (1, pairs), see `_edges.answer`."""

    id: ClassVar[str] = "graphmi"
    level: ClassVar[str] = "WB"
    budget: ClassVar[tuple[str, ...]] = ("steps",)

    steps: Count = 100
    rate: Positive = 0.1
    alpha: NonNegative = 1e-4
    beta: NonNegative = 1e-3
    density: Positive = 1.0
    auto_encoder: bool = True
    decoder: Literal["cosine", "sigmoid"] = "cosine"
    samples: Count = 20

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.tracks.graph.attacks import _edges

        x, y, edges = knowledge.features, knowledge.labels, round(self.density * knowledge.edges)

        def search(twin: bool, rng: torch.Generator) -> tuple[Tensor, Tensor, list[tuple[int, Tensor]]]:
            network = oracle.module(twin=twin)
            a = self._relaxed(network, x, y, edges)
            scores = self._scores(network, a, len(y)) if self.auto_encoder else a
            return scores, self._sampled(network, scores, x, y, edges, rng), []

        return _edges.answer(search, rng)

    def _loss(self, network: WhiteBox, a: Tensor, y: Tensor, likeness: Tensor | None) -> Tensor:
        """L of graphs a: (graphs, m), without smoothness where `likeness` (n, n) is None."""
        import torch
        from torch.nn import functional as F

        from inversionbench.tracks.graph.attacks._edges import adjacency, smoothness

        graphs = adjacency(a, len(y))
        loss = F.cross_entropy(network(graphs).mT, y.expand(len(a), -1), reduction="none").mean(1)
        loss = loss + self.beta * (a.square().sum(1) + 1e-12).sqrt()
        return loss if likeness is None else loss + self.alpha * torch.stack([smoothness(g, likeness) for g in graphs])

    def _relaxed(self, network: WhiteBox, x: Tensor, y: Tensor, edges: int) -> Tensor:
        """Step 2: projected gradient descent from the empty graph, (m,)."""
        import torch

        from inversionbench.tracks.graph.attacks._edges import project

        a, likeness = torch.zeros(len(y) * (len(y) - 1) // 2), x @ x.T
        for step in range(self.steps):
            a.requires_grad_()
            loss = self._loss(network, a[None], y, likeness if 2 * step >= self.steps else None).sum()
            (gradient,) = torch.autograd.grad(loss, a)
            a = project(a.detach() - self.rate * gradient, edges)
        return a

    def _scores(self, network: WhiteBox, a: Tensor, n: int) -> Tensor:
        """Step 3: pairs by their embeddings in the target's own first layer, (m,)."""
        from inversionbench.tracks.graph.attacks._edges import adjacency, cosines, pairs

        embedded = network.trace(adjacency(a[None], n)).features
        assert embedded is not None
        if self.decoder == "cosine":
            return cosines(embedded[0])
        row, column = pairs(n)
        return (embedded[0] @ embedded[0].T)[row, column].sigmoid()

    def _sampled(
        self, network: WhiteBox, scores: Tensor, x: Tensor, y: Tensor, edges: int, rng: torch.Generator
    ) -> Tensor:
        """Step 4: the best of some graphs drawn without replacement, bool (m,)."""
        import torch

        chance = scores.clamp_min(0) + 1e-9
        drawn = torch.multinomial(chance.expand(self.samples, -1), min(edges, len(scores)), generator=rng)
        graphs = torch.zeros(self.samples, len(scores)).scatter_(1, drawn, 1.0)
        with torch.no_grad():
            return graphs[self._loss(network, graphs, y, x @ x.T).argmin()].bool()
