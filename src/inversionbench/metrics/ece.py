"""ECE, the expected calibration error of the (defended) target (Guo et al., ICML 2017): a price of a defense.

Predictions are binned by their confidence (the largest probability) into `bins` equal bins (0, 1/bins], ...;
ECE = sum_b n_b / n |accuracy_b - confidence_b|. Measured on clean test data through the release path, with the
outputs a user gets: a defense that rounds or perturbs scores keeps its accuracy and pays here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Spec, check_features, check_labels

SPEC = Spec("ece", "expected calibration error", direction="lower", range=(0.0, 1.0), kind="utility")


def ece(probabilities: Any, target: Any, bins: int = 15) -> float:
    """Expected calibration error.

    probabilities: float (n, classes) in [0, 1], rows summing to 1 (0.01 tolerated: rounded scores). target:
    int (n,). Returns a float in [0, 1]; lower is better. Raises `UserError` for other shapes or values, for
    example logits.

    >>> round(ece(torch.tensor([[0.8, 0.2], [0.6, 0.4]]), [0, 1]), 4)
    0.4
    """
    p, y = check_probabilities(probabilities, target, SPEC.id)
    confidence, guess = p.max(dim=1)
    return calibration_error(confidence, guess == y, bins)


def calibration_error(confidence: Tensor, right: Tensor, bins: int = 15) -> float:
    """The same from the confidence of each answer (n,) in [0, 1] and whether it is right (n,): for released
    scores that do not sum to 1."""
    sure = confidence.double().cpu()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place = (torch.bucketize(sure, edges) - 1).clamp(0, bins - 1)
    gap = torch.bincount(place, weights=right.double().cpu() - sure, minlength=bins)
    return float(gap.abs().sum() / len(sure))


def check_probabilities(probabilities: Any, target: Any, metric: str) -> tuple[Tensor, Tensor]:
    """Probabilities (n, classes) and classes (n,) on one device."""
    p = check_features(probabilities, metric, "probabilities")
    y = check_labels(target, len(p), metric, "target").to(p.device)
    if p.min() < 0 or p.max() > 1 + 1e-6 or (p.sum(dim=1) - 1).abs().max() > 0.01:
        raise UserError(f"{metric}: rows of probabilities must lie in [0, 1] and sum to 1: apply softmax to logits")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise UserError(f"{metric}: target must lie in 0..{p.shape[1] - 1}, got {int(y.min())}..{int(y.max())}")
    return p, y
