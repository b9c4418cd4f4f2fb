"""Label recovery: which labels of a batch an attack reads from its gradient (iDLG, GradInversion).

Counts are compared, not places: a gradient has no order. With class counts n (true) and n' (guessed) of a
batch of B: overlap = 1 - sum_k |n_k - n'_k| / 2B; exact = 1[n' = n]; existence = balanced accuracy of
1[n_k > 0] over classes. With B large against the number of classes a blind guess scores high: `blind_overlap`
simulates it from the class prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.quantity import Quantity
from inversionbench.metrics.base import Spec, Unavailable, check_labels

SPEC = Spec(
    "label_recovery",
    "label recovery",
    unit="%",
    digits=1,
    factor=100,
    direction="higher",
    range=(0.0, 1.0),
    kind="protocol",
    note="overlap of the recovered with the true labels of a batch, as counts",
)
FURTHER = (
    Quantity(
        "labels_exact",
        "all labels right",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of batches with all labels right",
    ),
    Quantity(
        "classes_found",
        "classes found (balanced)",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="balanced accuracy of saying which classes are in the batch",
    ),
)


@dataclass(frozen=True)
class LabelRecovery:
    """One batch. `existence` is `Unavailable` when every class is in the batch: none could be absent."""

    overlap: float
    exact: float
    existence: float | Unavailable


def label_recovery(guess: Any, truth: Any, classes: int) -> LabelRecovery:
    """Scores of the guessed labels of one batch.

    guess, truth: int (B,) in 0..classes-1, any order, B > 0. Higher means more leakage. Raises `UserError`
    for unequal lengths or labels out of range.

    >>> score = label_recovery([0, 1, 1, 3], [0, 0, 1, 2], classes=4)
    >>> score.overlap, score.exact, round(score.existence, 4)
    (0.5, 0.0, 0.3333)
    """
    true = _counts(truth, classes, "truth")
    guessed = _counts(guess, classes, "guess")
    batch = int(true.sum())
    if guessed.sum() != batch:
        raise UserError(f"label_recovery: expected {batch} guessed labels, got {int(guessed.sum())}")
    present = true > 0
    existence: float | Unavailable = Unavailable("every class is in the batch: none could be absent")
    if not present.all():
        found = guessed > 0
        existence = float((found[present].mean() + (~found[~present]).mean()) / 2)
    return LabelRecovery(
        overlap=float(1 - np.abs(true - guessed).sum() / (2 * batch)),
        exact=float((true == guessed).all()),
        existence=existence,
    )


def blind_overlap(truth: Any, prior: Any, rng: np.random.Generator, draws: int = 1000) -> float:
    """Mean overlap of guessing the batch `truth` (B,) from the class prior (classes,) alone: what 0 means.

    >>> round(blind_overlap([3], np.full(10, 0.1), np.random.default_rng(0), draws=20_000), 2)
    0.1
    """
    p = np.asarray(prior, dtype=np.float64)
    if p.ndim != 1 or not len(p) or (p < 0).any() or not p.sum() > 0:
        raise UserError(f"label_recovery: prior must be non-negative (classes,), got shape {p.shape}")
    true = _counts(truth, len(p), "truth")
    guesses = rng.multinomial(int(true.sum()), p / p.sum(), size=draws)
    return float(1 - np.abs(guesses - true).sum() / (2 * true.sum() * draws))


def _counts(labels: Any, classes: int, what: str) -> np.ndarray:
    """How often each class occurs: int (classes,)."""
    if not len(labels):
        raise UserError(f"label_recovery: {what} is empty")
    array = check_labels(labels, len(labels), "label_recovery", what).cpu().numpy()
    if array.min() < 0 or array.max() >= classes:
        raise UserError(f"label_recovery: {what} must lie in 0..{classes - 1}, got {array.min()}..{array.max()}")
    return np.bincount(array, minlength=classes)
