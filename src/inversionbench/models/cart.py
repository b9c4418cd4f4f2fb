"""A decision tree whose learner may be told to avoid one attribute; as arrays of `models.trees`.

CART with Gini impurity. At a node with the training rows N_t, class counts c and I(t) = 1 - sum_c (c / |N_t|)^2:

    gain(f) = I(t) - |L|/|N_t| I(L) - |R|/|N_t| I(R)     the best threshold of column f; both sides >= `leaf` rows
    split at argmax_f (1 - penalty w_f) gain(f)          w_f = 1 for the columns of the sensitive attribute, else 0

Whether a node is split at all is asked of the plain gain: a pure node, one at the largest depth and one without room
for two leaves are not. With penalty 1 a sensitive column is never used, and the tree is the one of a table without it.
Equal gains go to the first column.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from inversionbench.models import trees
from inversionbench.models.trees import Trees


@dataclass(frozen=True)
class Learner:
    """How a tree is grown. depth: the largest (None: any). leaf: the smallest number of rows in a leaf. sensitive:
    (start, stop), the columns of the attribute that shall not leak. penalty: in [0, 1], what a split on them loses of
    its gain. free_at: the one depth (0 is the root) where it loses nothing."""

    depth: int | None
    leaf: int
    sensitive: tuple[int, int]
    penalty: float = 0.0
    free_at: int | None = None

    def grow(self, x: np.ndarray, y: np.ndarray, classes: int, seed: int) -> Trees:
        """x: float32 (n, columns), y: int64 (n,). Without a penalty scikit-learn's tree, whose ties `seed` breaks."""
        if self.penalty == 0:
            return trees.grow(x, y, classes, seed, self.depth, self.leaf)
        return _Growing(self, x, np.eye(classes)[y]).tree()


@dataclass
class _Growing:
    """Nodes as they are found, a parent before its children. hot: (n, classes), the classes as zeros and ones. nodes:
    (column, threshold); below: [left, right]; counts: of the classes."""

    learner: Learner
    x: np.ndarray
    hot: np.ndarray
    nodes: list[tuple[int, float]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)

    def tree(self) -> Trees:
        open_nodes: list[tuple[np.ndarray, int, int, int]] = [(np.arange(len(self.x)), 0, -1, 0)]
        while open_nodes:
            rows, depth, parent, side = open_nodes.pop()
            here = len(self.nodes)
            if parent >= 0:
                self.below[parent][side] = here
            self.counts.append(self.hot[rows].sum(0))
            feature, threshold = self._split(rows, depth)
            self.nodes.append((feature, threshold))
            self.below.append([-1, -1])
            if feature >= 0:
                low = self.x[rows, feature].astype(np.float64) <= threshold
                open_nodes += [(rows[~low], depth + 1, here, 1), (rows[low], depth + 1, here, 0)]
        counts, (left, right) = np.array(self.counts), np.array(self.below, np.int64).T
        features, thresholds = zip(*self.nodes)
        value = counts / counts.sum(1, keepdims=True)
        return Trees(np.array(features, np.int64), np.array(thresholds, np.float64), left, right, value, counts,
                     np.zeros(1, np.int64))  # fmt: skip

    def _split(self, rows: np.ndarray, depth: int) -> tuple[int, float]:
        """(column, threshold) where a node is split; column -1: not at all."""
        here, stop = self.learner, (-1, -2.0)
        if depth == here.depth or len(rows) < 2 * here.leaf or np.count_nonzero(self.hot[rows].sum(0)) < 2:
            return stop
        gain, threshold = best_splits(self.x[rows], self.hot[rows], here.leaf)
        kept = 1.0 if depth == here.free_at else 1 - here.penalty
        sensitive = np.s_[here.sensitive[0] : here.sensitive[1]]
        gain[sensitive] = gain[sensitive] * kept if kept else -np.inf
        best = int(gain.argmax())
        return (best, float(threshold[best])) if np.isfinite(gain[best]) else stop


def best_splits(x: np.ndarray, hot: np.ndarray, leaf: int) -> tuple[np.ndarray, np.ndarray]:
    """(gain, threshold) of the best split of every column, float64 (columns,); gain -inf where a column has none.

    x: (n, columns), hot: (n, classes).

    >>> x, hot = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]), np.eye(2)[[0, 0, 1, 1]]
    >>> [part.tolist() for part in best_splits(x, hot, 1)]
    [[0.5, -inf], [1.5, 1.0]]
    """
    n, order = len(x), x.argsort(axis=0, kind="stable")
    value = np.take_along_axis(x, order, axis=0).astype(np.float64)
    left = hot[order].cumsum(0)[:-1]  # (n - 1, columns, classes)
    total = hot.sum(0)
    size = np.arange(1, n, dtype=np.float64)[:, None]
    purity = (left**2).sum(2) / size + ((total - left) ** 2).sum(2) / (n - size)
    allowed = (value[1:] > value[:-1]) & (size >= leaf) & (n - size >= leaf)
    gain = np.where(allowed, purity / n - (total**2).sum() / n**2, -np.inf)
    at = gain.argmax(0)
    column = np.arange(x.shape[1])
    middle = value[at, column] / 2 + value[at + 1, column] / 2
    return gain[at, column], middle


def importance(grown: Trees, start: int, stop: int) -> float:
    """Share of all decreases of impurity, weighted by rows, that splits on the columns start..stop-1 bring."""
    size, inner = grown.counts.sum(1), grown.left >= 0
    impurity = size * (1 - (grown.value**2).sum(1))
    decrease = np.where(inner, impurity - impurity[grown.left] - impurity[grown.right], 0.0)
    own = (grown.feature >= start) & (grown.feature < stop)
    return float(decrease[own].sum() / max(decrease.sum(), np.finfo(float).tiny))
