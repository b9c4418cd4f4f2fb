"""Recovered edges against the true ones, and against the same attack on a target that never saw an edge.

Every number is of one graph and one target; the unit of an interval is therefore the target (the seed). `gain_low` and
`gain_high` among the facts are of this one target: 95 % over its nodes, drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from inversionbench.core.quantity import Quantity
from inversionbench.core.scenario import Evaluation

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.attack import Reconstruction

QUANTITIES = (
    Quantity("edge_gain", "gain", unit="points", digits=1, factor=100, direction="higher",
             note="AUROC over pairs of nodes minus that of the same attack on a target that never saw an edge"),
    Quantity("edge_auc", "AUROC", digits=3, direction="higher",
             note="area under the ROC curve of the scores over all pairs of nodes; likeness alone gives much of it"),
    Quantity("edge_ap", "average precision", digits=3, direction="higher",
             note="over the edges and as many pairs without one, drawn ten times; chance is 0.5"),
    Quantity("edge_precision", "precision", unit="%", digits=1, factor=100, direction="higher",
             note="share of edges among the pairs that are claimed, as many as there are edges"),
)  # fmt: skip
DRAWS, SUBSETS = 200, 10


def evaluate(reconstruction: Reconstruction, truth: Mapping[str, Tensor], seed: int) -> Evaluation:
    """All metrics of one reconstruction (data: float (1, m), labels: 0 or 1 for each pair)."""
    rng = np.random.default_rng(seed)
    graph = truth["adjacency"].numpy()
    nodes = np.stack(np.tril_indices(len(graph), -1))
    edge, claimed = graph[nodes[0], nodes[1]], reconstruction.labels[0].numpy() > 0
    scores, twin = (s[0].double().numpy() for s in (reconstruction.data, reconstruction.notes["twin"]))
    reached, known = auc(scores, edge), auc(twin, edge)
    metrics = {
        "edge_gain": reached - known, "edge_auc": reached, "edge_ap": average_precision(scores, edge, rng),
        "edge_precision": float(edge[claimed].mean()) if claimed.any() else 0.0,
    }  # fmt: skip
    out = Evaluation({name: np.array([value]) for name, value in metrics.items()}, np.zeros(1, np.int64))
    out.controls["never_saw_an_edge"] = {"edge_gain": np.zeros(1), "edge_auc": np.array([known])}
    out.curves["edge_auc"] = [(spent, np.array([auc(held[0].double().numpy(), edge)]))
                              for spent, held in reconstruction.checkpoints]  # fmt: skip
    weights = (w[nodes[0]] * w[nodes[1]] for w in resampled(len(graph), rng))
    gains = [auc(scores, edge, w) - auc(twin, edge, w) for w in weights]
    low, high = np.quantile(gains, [0.025, 0.975])
    out.facts = {"twin": round(known, 6), "edges": int(edge.sum()), "pairs": len(edge),
                 "gain_low": float(low), "gain_high": float(high), **by_influence(scores, edge, truth)}  # fmt: skip
    if truth["guarantee"]:
        out.facts["guarantee"] = truth["guarantee"]
    return out


def auc(scores: np.ndarray, edge: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve, ties a half; pairs count by their weights (m,).

    >>> auc(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False]))
    0.875
    """
    _, place = np.unique(scores, return_inverse=True)
    w = np.ones(len(scores)) if weights is None else weights
    yes, no = (np.bincount(place, w * kind, minlength=place.max() + 1) for kind in (edge, ~edge))
    below = np.cumsum(no) - no / 2
    return float(yes @ below / (yes.sum() * no.sum()))


def average_precision(scores: np.ndarray, edge: np.ndarray, rng: np.random.Generator) -> float:
    """Mean over `SUBSETS` draws of as many non-edges as there are edges."""
    from sklearn.metrics import average_precision_score

    yes, no = np.flatnonzero(edge), np.flatnonzero(~edge)
    found = []
    for _ in range(SUBSETS):
        rows = np.concatenate([yes, rng.choice(no, min(len(yes), len(no)), replace=False)])
        found.append(average_precision_score(edge[rows], scores[rows]))
    return float(np.mean(found))


def resampled(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each node was drawn, (DRAWS, n)."""
    return np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(DRAWS)]).astype(float)


def by_influence(scores: np.ndarray, edge: np.ndarray, truth: Mapping[str, Tensor]) -> dict[str, Any]:
    """AUROC of the quarter of the edges that matter most to the target, and of the others, against all non-edges."""
    influence = truth["influence"].numpy()
    most = influence >= np.quantile(influence, 0.75)
    rows, out = np.flatnonzero(edge), {}
    for name, part in (("influential", rows[most]), ("other", rows[~most])):
        kept = ~edge
        kept[part] = True
        out[f"edge_auc_{name}"] = round(auc(scores[kept], edge[kept]), 6) if len(part) else None
    return out
