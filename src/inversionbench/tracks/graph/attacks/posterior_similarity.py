"""The baseline without any inversion: nodes whose deployed scores are alike are joined.

The network is deployed on the graph, so its scores for a node are a mean over the neighbours, too, and two neighbours
get similar ones (the first attack of He, Jia, Backes, Gong, Zhang, "Stealing Links from Graph Neural Networks", USENIX
Security 2021). The attacker asks for the scores of every node once, and scores a pair by the cosine of its two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inversionbench.core.attack import Attack, Knowledge, Reconstruction

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class PosteriorSimilarity(Attack):
    """data: float (1, pairs), see `_edges.answer`."""

    id: ClassVar[str] = "posterior_similarity"
    level: ClassVar[str] = "BB-S"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.tracks.graph.attacks import _edges

        def search(twin: bool, rng: torch.Generator) -> tuple[Tensor, Tensor, list[tuple[int, Tensor]]]:
            scores = oracle.scores(torch.arange(len(knowledge.labels)), twin=twin)
            alike = _edges.cosines(scores)
            return alike, _edges.top(alike, knowledge.edges), []

        return _edges.answer(search, rng)
