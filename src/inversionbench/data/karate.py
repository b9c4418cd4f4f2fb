"""karate: Zachary's karate club, 34 members, 78 friendships, 2 clubs after the split. Shipped with networkx.

One graph, all of it private: what an attacker may know of it (features, labels, how many edges) the graph track
grants. The other parts are empty. The members have no features: x is the identity, float32 (34, 34). y: the club
that a member joined. `extra`: `adjacency` bool (34, 34), symmetric, zero diagonal, without the counts of contacts;
`index` (member).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.data.base import PARTS, Card, DatasetSource


@dataclass(frozen=True)
class Karate(DatasetSource):
    """Zachary's karate club; no options."""

    id = "karate"
    task = "2 clubs"
    card = Card(
        name="Zachary's karate club",
        modality="graph",
        source="networkx.karate_club_graph",
        terms="published data; networkx is BSD 3-clause",
        citation="Zachary: An information flow model for conflict and fission in small groups, 1977",
        notes="34 nodes give 561 pairs: read intervals over trainings, and differences",
        embedded=True,
    )

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        import networkx

        club = networkx.karate_club_graph()
        adjacency = networkx.to_numpy_array(club, weight=None) > 0
        y = np.array([club.nodes[member]["club"] == "Officer" for member in club], np.int64)
        for part in PARTS:
            rows = np.arange(len(y) if part == "private" else 0)
            edges = adjacency[np.ix_(rows, rows)]
            out.put(part, np.eye(len(y), dtype=np.float32)[rows], y[rows], adjacency=edges, index=rows)
        out.meta(classes=2, edges={part: int(adjacency.sum()) // 2 if part == "private" else 0 for part in PARTS})
