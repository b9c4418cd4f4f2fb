"""Imputers: models that guess a sensitive attribute from the other columns, without any target.

Trained on public records, from the known columns and, where the response is known too, from its one-hot
code. Logistic regression or a random forest, whichever is better in cross-validation on the public rows: an
attack is only as good as its distance to the best imputer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from inversionbench.models import trees
from inversionbench.models.columns import Question

KINDS = ("best", "logistic", "forest")
TREES = 60
FOLDS = 3


def train_imputer(
    question: Question, x: np.ndarray, y: np.ndarray | None, classes: int, seed: int, kind: str = "best",
    balanced: bool = False,
) -> dict[str, Any]:
    """An imputer as plain tensors, for `impute`.

    x: float32 (n, width), whole public records. y: int64 (n,), their responses, or None. balanced: all values
    weigh the same in training, and balanced accuracy chooses the kind; otherwise plain accuracy does.
    """
    x = np.asarray(x)
    known, value, values = _inputs(question.known(x), y, classes), question.truth(x), len(question.values)
    if kind == "best":
        kind = max(KINDS[1:], key=lambda one: _quality(one, known, value, values, seed, balanced))
    return _fit(kind, known, value, values, seed, balanced)


def impute(model: Mapping[str, Any], records: np.ndarray, y: np.ndarray | None, classes: int) -> np.ndarray:
    """Probability of each value, float64 (n, V). records: (n, known columns). y: as in training, or None."""
    return _probabilities(model, _inputs(records, y, classes))


def _quality(kind: str, known: np.ndarray, value: np.ndarray, values: int, seed: int, balanced: bool) -> float:
    """Accuracy (or balanced accuracy) in cross-validation; a smaller forest is enough for the choice."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score

    fold = np.random.default_rng(seed).permutation(len(value)) % FOLDS
    guess = np.empty(len(value), dtype=np.int64)
    for f in range(FOLDS):
        model = _fit(kind, known[fold != f], value[fold != f], values, seed, balanced, TREES // FOLDS)
        guess[fold == f] = _probabilities(model, known[fold == f]).argmax(1)
    return float((balanced_accuracy_score if balanced else accuracy_score)(value, guess))


def _fit(
    kind: str, known: np.ndarray, value: np.ndarray, values: int, seed: int, balanced: bool, count: int = TREES
) -> dict[str, Any]:
    if kind == "forest":
        forest = trees.grow_forest(known, value, values, seed, count, balanced=balanced)
        return {"kind": kind, "forest": forest.state()}
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000, class_weight="balanced" if balanced else None)
    model.fit(known.astype(np.float64), value)
    slope, offset = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two values: of the second against the first
        slope, offset = np.r_[0 * slope, slope], np.r_[0 * offset, offset]
    weights, bias = np.zeros((values, known.shape[1])), np.full(values, -np.inf)
    weights[model.classes_], bias[model.classes_] = slope, offset
    return {"kind": kind, "weights": torch.from_numpy(weights), "bias": torch.from_numpy(bias)}


def _probabilities(model: Mapping[str, Any], known: np.ndarray) -> np.ndarray:
    if model["kind"] == "forest":
        return trees.probabilities(trees.from_state(model["forest"]), known)
    logits = known.astype(np.float64) @ model["weights"].numpy().T + model["bias"].numpy()
    share = np.exp(logits - logits.max(1, keepdims=True))
    return share / share.sum(1, keepdims=True)


def _inputs(known: np.ndarray, y: np.ndarray | None, classes: int) -> np.ndarray:
    return known if y is None else np.concatenate([known, np.eye(classes, dtype=np.float32)[y]], axis=1)
