"""Query count: what an attack costs in evaluations of the target (black-box and label-only attacks).

The oracle counts every input that the target evaluates (a batch of n counts n, repeats count again); this
module reads such ledgers. Fewer queries for equal accuracy is the stronger attack. Two budgets compare only
for the same number of attacked classes; labelling by surrogates and priors is counted too, as its own phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Spec, Unavailable

SPEC = Spec("query_count", "queries", unit="inputs", direction="lower", range=(0.0, float("inf")), kind="protocol")


@dataclass(frozen=True)
class QueryCount:
    """Inputs evaluated by the target, by phase, and forward-backward passes through it (white box)."""

    phases: dict[str, int]
    gradient_queries: int
    classes: int

    @property
    def total(self) -> int:
        return sum(self.phases.values())

    @property
    def per_class(self) -> float:
        return self.total / self.classes


def query_count(phases: Mapping[str, int], classes: int, gradient_queries: int = 0) -> QueryCount:
    """The cost of one attack.

    phases: inputs per phase, integers >= 0, as `Ledger.by_phase` of the oracle gives them. classes: attacked
    classes, > 0. gradient_queries: white-box passes, `Ledger.passes`. Raises `UserError` for other values.

    >>> cost = query_count({"train": 1000, "search": 24}, classes=8)
    >>> cost.total, cost.per_class
    (1024, 128.0)
    """
    counts = {"gradient_queries": gradient_queries, **phases}
    for phase, count in counts.items():
        if isinstance(count, bool) or int(count) != count or count < 0:
            raise UserError(f"query_count: phase '{phase}' must be an integer >= 0, got {count!r}")
    if classes < 1:
        raise UserError(f"query_count: expected at least one attacked class, got {classes}")
    return QueryCount({p: int(c) for p, c in phases.items()}, int(gradient_queries), int(classes))


def queries_to(queries: Sequence[float], accuracy: Sequence[float], threshold: float) -> int | Unavailable:
    """The smallest number of queries at which the accuracy reaches `threshold`.

    queries, accuracy: (k,) points of one curve, queries increasing.

    >>> queries_to([1000, 10_000, 100_000], [0.1, 0.5, 0.9], 0.5)
    10000
    >>> queries_to([1000, 10_000], [0.1, 0.5], 0.8)
    Unavailable(reason='accuracy 0.8 not reached within 10000 queries')
    """
    q, a = _curve(queries, accuracy)
    reached = np.flatnonzero(a >= threshold)
    if not len(reached):
        return Unavailable(f"accuracy {threshold:g} not reached within {q[-1]:g} queries")
    return int(q[reached[0]])


def accuracy_at(
    queries: Sequence[float], accuracy: Sequence[float], budgets: Sequence[float]
) -> list[float | Unavailable]:
    """Accuracy at each budget: that of the last point that the budget pays for.

    >>> accuracy_at([1000, 10_000], [0.1, 0.5], [500, 5000, 10_000])
    [Unavailable(reason='no result within 500 queries'), 0.1, 0.5]
    """
    q, a = _curve(queries, accuracy)
    last = np.searchsorted(q, budgets, side="right") - 1
    return [
        float(a[i]) if i >= 0 else Unavailable(f"no result within {budget:g} queries")
        for i, budget in zip(last, budgets)
    ]


def _curve(queries: Sequence[float], accuracy: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    q, a = np.asarray(queries, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if q.ndim != 1 or q.shape != a.shape or not len(q) or not np.isfinite(a).all() or (np.diff(q) <= 0).any():
        raise UserError(
            f"query_count: a curve needs as many accuracies as increasing numbers of queries, got {q.shape} "
            f"and {a.shape}"
        )
    return q, a
