"""Decision trees and forests as plain arrays: grown by scikit-learn, stored and asked without it.

A tree of m nodes is six arrays of length m. A row goes left where `x[feature] <= threshold`, both compared
in double precision; at a leaf (`left == -1`) it takes the class shares of the training rows that ended there.
Several trees lie one after the other in the same arrays; `roots` says where each begins. A single tree
answers with the same bits as scikit-learn, and so does a forest, because it adds its trees in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier

FLOOR = 1e-12  # the smallest class share whose logarithm is taken: keeps logits finite
_ARRAYS = ("feature", "threshold", "left", "right", "value", "counts", "roots")


@dataclass(frozen=True)
class Trees:
    """feature, left, right: int64 (nodes,), -1 at leaves. threshold: float64 (nodes,). value: float64
    (nodes, classes), class shares of the training rows in a node. counts: float64 (nodes, classes), the same
    as numbers of rows. roots: int64 (trees,), the node where each tree begins.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    counts: np.ndarray
    roots: np.ndarray

    def state(self) -> dict[str, Tensor]:
        """Plain tensors, for `torch.save`."""
        return {name: torch.from_numpy(np.array(getattr(self, name))) for name in _ARRAYS}


def from_state(state: Mapping[str, Tensor]) -> Trees:
    """The opposite of `Trees.state`."""
    return Trees(**{name: state[name].numpy() for name in _ARRAYS})


def from_sklearn(grown: Sequence[DecisionTreeClassifier], classes: int) -> Trees:
    """The arrays of fitted scikit-learn trees. A tree may have seen fewer than all `classes` (0..classes-1).

    The trees of a `RandomForestClassifier` number the classes that the forest saw: set them back first, as
    `grow_forest` does.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
    start = 0
    for one in grown:
        tree, seen = one.tree_, np.asarray(one.classes_, dtype=np.int64)
        value = np.zeros((tree.node_count, classes))
        value[:, seen] = tree.value[:, 0, : len(seen)]
        leaf = tree.children_left < 0
        parts["feature"].append(np.where(leaf, -1, tree.feature))
        parts["threshold"].append(tree.threshold)
        parts["left"].append(np.where(leaf, -1, tree.children_left + start))
        parts["right"].append(np.where(leaf, -1, tree.children_right + start))
        parts["value"].append(value)
        parts["counts"].append(np.rint(value * tree.weighted_n_node_samples[:, None]))
        parts["roots"].append(np.array([start]))
        start += tree.node_count
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    for name in ("feature", "left", "right", "roots"):
        joined[name] = joined[name].astype(np.int64)
    return Trees(**joined)


def grow(
    x: np.ndarray, y: np.ndarray, classes: int, seed: int, depth: int | None = None, leaf: int = 1
) -> Trees:
    """One CART tree (Gini impurity). depth: the largest depth (None: until leaves are pure). leaf: the
    smallest number of training rows in a leaf."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=leaf, random_state=seed)
    return from_sklearn([tree.fit(x, y)], classes)


def grow_forest(
    x: np.ndarray, y: np.ndarray, classes: int, seed: int, trees: int = 60, leaf: int = 3, balanced: bool = False
) -> Trees:
    """A random forest. balanced: rows weigh so that all values of y count the same."""
    from sklearn.ensemble import RandomForestClassifier

    weight = "balanced" if balanced else None
    forest = RandomForestClassifier(trees, min_samples_leaf=leaf, class_weight=weight, random_state=seed)
    forest.fit(x, y)
    for tree in forest.estimators_:
        tree.classes_ = forest.classes_[tree.classes_.astype(np.int64)]
    return from_sklearn(forest.estimators_, classes)


def leaves(trees: Trees, x: np.ndarray) -> np.ndarray:
    """The leaf of every row in every tree, int64 (n, trees). x: float32 (n, columns)."""
    x = np.asarray(x, dtype=np.float32)
    rows = np.arange(len(x))[:, None]
    node = np.broadcast_to(trees.roots, (len(x), len(trees.roots))).copy()
    while True:
        feature = trees.feature[node]
        inner = feature >= 0
        if not inner.any():
            return node
        left = x[rows, np.where(inner, feature, 0)].astype(np.float64) <= trees.threshold[node]
        node = np.where(inner, np.where(left, trees.left[node], trees.right[node]), node)


def probabilities(trees: Trees, x: np.ndarray) -> np.ndarray:
    """Class shares, float64 (n, classes): the mean over the trees, each row summing to 1."""
    node = leaves(trees, x)
    total = np.zeros((len(x), trees.value.shape[1]))
    for column in range(node.shape[1]):
        total += trees.value[node[:, column]]
    return total / node.shape[1]


class TreeModel(nn.Module):
    """A single tree as a classifier: logits are the logarithms of its class shares, at least log(FLOOR).

    The softmax of the logits is the tree's own answer up to float32 rounding. Answers have no gradient.
    """

    def __init__(self, trees: Trees):
        super().__init__()
        for name, tensor in trees.state().items():
            if name in ("threshold", "value"):  # what was learnt
                self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
            else:
                self.register_buffer(name, tensor)

    @property
    def trees(self) -> Trees:
        return from_state({name: getattr(self, name).detach() for name in _ARRAYS})

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, columns) -> logits float32 (n, classes)."""
        share = torch.from_numpy(probabilities(self.trees, x.detach().cpu().numpy()))
        return share.clamp_min(FLOOR).log().float().to(x.device)


def facts(trees: Trees) -> dict[str, Any]:
    """Size of the trees, for people: number of leaves, and rows in the median leaf."""
    leaf = trees.left < 0
    return {"leaves": int(leaf.sum()), "median_rows": float(np.median(trees.counts[leaf].sum(1)))}
