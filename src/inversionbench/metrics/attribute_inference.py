"""Attribute inference: does the model give away a sensitive attribute of a record (Fredrikson et al. 2014, 2015)?

Accuracy, balanced accuracy, macro F1, Matthews correlation, AUROC where scores exist (each value against the rest,
averaged), and precision and recall per value. An attribute can be guessed without the model, from the other
columns alone: the leakage is the advantage over the best imputer (`models.imputers`) trained on public records
from the same known attributes (with the task label if the attack knows it). Members and non-members are scored
apart: only their gap is memorisation, the rest is statistics of the population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.quantity import Quantity
from inversionbench.metrics.auroc_gap import ABSENT, placements
from inversionbench.metrics.base import Spec, Unavailable

SPEC = Spec(
    "attribute_inference",
    "attribute inference",
    unit="%",
    digits=1,
    factor=100,
    direction="higher",
    range=(-1.0, 1.0),
    kind="protocol",
)
FURTHER = (
    Quantity(
        "accuracy",
        "accuracy",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of right values of the sensitive column, over members",
    ),
    Quantity(
        "member_gap",
        "member gap",
        unit="points",
        digits=1,
        factor=100,
        direction="higher",
        note=(
            "balanced accuracy over members minus over non-members: what the model tells of anybody drops out. "
            "Averages over values with 20 records and more among members and among non-members"
        ),
    ),
    Quantity(
        "advantage",
        "advantage over imputation",
        unit="points",
        digits=1,
        factor=100,
        direction="higher",
        note="balanced accuracy minus that of the imputation control",
    ),
    Quantity(
        "f1",
        "macro F1",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="F1 score, averaged over the values of the sensitive column",
    ),
    Quantity(
        "auc",
        "AUROC",
        digits=2,
        direction="higher",
        note="area under the ROC curve of the scores, averaged over the values",
    ),
    Quantity(
        "balanced_accuracy",
        "balanced accuracy",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="recall, averaged over the values of the sensitive column, over members",
    ),
)


@dataclass(frozen=True)
class AttributeInference:
    """Scores of one attack on one attribute. `advantage`: accuracy minus the imputer's, in [-1, 1]. `gap`:
    accuracy on members minus on non-members. `precision`, `recall`: per value of the attribute."""

    accuracy: float
    balanced: float
    f1: float
    mcc: float
    auroc: float | Unavailable
    advantage: float | Unavailable
    gap: float | Unavailable
    precision: dict[int, float]
    recall: dict[int, float]
    n: int


def attribute_inference(
    guess: Any,
    truth: Any,
    imputed: Any = None,
    scores: Any = None,
    members: Any = None,
    values: Sequence[int] | None = None,
) -> AttributeInference:
    """Scores of guessed attribute values.

    guess, truth: int (n,), n > 0. imputed: int (n,), the guess of an imputer that saw no model. scores: float
    (n,) for two values (of the larger one), or (n, V) summing to 1, one column for each of the values 0 .. V - 1.
    members: bool (n,), whether the record trained the model. values: what balanced accuracy, F1 and AUROC average
    over (default: the values present in `truth`), each present in `truth`. Higher means more leakage. Raises
    `UserError` for unequal lengths.

    >>> score = attribute_inference([1, 0, 0, 0], [1, 1, 0, 0], imputed=[0, 0, 0, 0])
    >>> score.accuracy, score.balanced, score.recall[1], score.precision[1], score.advantage
    (0.75, 0.75, 0.5, 1.0, 0.25)
    """
    from sklearn.metrics import f1_score, matthews_corrcoef

    t = _values(truth, "truth", None)
    g = _values(guess, "guess", len(t))
    right = g == t
    recall = {int(v): float(right[t == v].mean()) for v in np.unique(t)}
    precision = {int(v): float(right[g == v].mean()) if (g == v).any() else 0.0 for v in recall}
    counted = list(recall) if values is None else [int(v) for v in values]
    return AttributeInference(
        accuracy=float(right.mean()),
        balanced=float(np.mean([recall[v] for v in counted])),
        f1=float(f1_score(t, g, labels=values, average="macro", zero_division=0)),
        mcc=float(matthews_corrcoef(t, g)),
        auroc=_auroc(t, scores, counted),
        advantage=Unavailable("needs the guess of an imputer")
        if imputed is None
        else float(right.mean() - (_values(imputed, "imputed", len(t)) == t).mean()),
        gap=_gap(right, members),
        precision=precision,
        recall=recall,
        n=len(t),
    )


def _auroc(truth: np.ndarray, scores: Any, values: Sequence[int]) -> float | Unavailable:
    if scores is None:
        return Unavailable("needs scores")
    s = np.asarray(scores, dtype=np.float64)
    if len(s) != len(truth) or s.ndim not in (1, 2) or not np.isfinite(s).all():
        raise UserError(f"attribute_inference: scores must be finite, (n,) or (n, values), got {s.shape}")
    two = s.ndim == 1 and len(values) == 2
    if len(values) < 2 or not (two or (s.ndim == 2 and s.shape[1] > max(values))):
        return Unavailable(ABSENT)
    if two:
        return float(placements(s, truth == max(values))[0].mean())
    return float(np.mean([placements(s[:, v], truth == v)[0].mean() for v in values]))


def _gap(right: np.ndarray, members: Any) -> float | Unavailable:
    if members is None:
        return Unavailable("needs to know which records are members")
    inside = np.asarray(members, dtype=bool)
    if inside.shape != right.shape:
        raise UserError(f"attribute_inference: members must be ({len(right)},), got {inside.shape}")
    if inside.all() or not inside.any():
        return Unavailable("needs members and non-members")
    return float(right[inside].mean() - right[~inside].mean())


def _values(labels: Any, what: str, n: int | None) -> np.ndarray:
    array = np.asarray(labels)
    if array.ndim != 1 or not len(array) or (n is not None and len(array) != n) or array.dtype.kind not in "iub":
        raise UserError(
            f"attribute_inference: {what} must be integers ({'n' if n is None else n},), n > 0, got "
            f"{array.dtype} {array.shape}"
        )
    return array.astype(np.int64)
