"""Control: nodes that are alike are joined. Asks the target nothing.

of: "features", the cosine of the features of a pair; "labels", whether its labels are the same; "both", same label plus
half the cosine of the features. An attack that does not beat it has found what everybody knows of the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from inversionbench.core.attack import Attack, Knowledge, Reconstruction

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class NodeSimilarity(Attack):
    """data: float (1, pairs), see `_edges.answer`; the twin's are the same."""

    id: ClassVar[str] = "node_similarity"
    level: ClassVar[str] = "LO"
    control: ClassVar[bool] = True
    control_without_defense: ClassVar[bool] = True

    of: Literal["features", "labels", "both"] = "both"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.tracks.graph.attacks import _edges

        row, column = _edges.pairs(len(knowledge.labels))
        same = (knowledge.labels[row] == knowledge.labels[column]).float()
        if self.of == "labels":
            alike = same
        else:
            near = _edges.cosines(knowledge.features)
            alike = near if self.of == "features" else same + near / 2
        return _edges.answer(lambda twin, rng: (alike, _edges.top(alike, knowledge.edges), []), rng)
