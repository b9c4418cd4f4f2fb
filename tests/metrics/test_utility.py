"""Calibration error and likelihood of released scores: hand cases, second libraries, what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.metrics.ece import ece
from inversionbench.metrics.nll import nll


def released(n: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.dirichlet(np.ones(classes), size=n)), torch.from_numpy(rng.integers(classes, size=n))


def test_ece_hand_cases():
    always = torch.tensor([[0.9, 0.1]] * 10)
    assert ece(always, [0] * 9 + [1]) == pytest.approx(0, abs=1e-7)
    assert ece(always, [1] * 10) == pytest.approx(0.9)
    assert ece(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), [0, 1]) == pytest.approx(0.5)


def test_ece_agrees_with_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, y = released(500, 4)
    theirs = multiclass_calibration_error(p, y, num_classes=4, n_bins=15, norm="l1").item()
    assert ece(p, y) == pytest.approx(theirs, abs=1e-6)
    assert theirs > 0.1


def test_calibrated_scores_have_little_error():
    p, _ = released(20_000, 3)
    y = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(0))[:, 0]
    assert ece(p, y) < 0.02


def test_nll_hand_cases_and_scikit_learn():
    from sklearn.metrics import log_loss

    assert nll(torch.full((5, 8), 1 / 8), [0] * 5) == pytest.approx(math.log(8))
    assert nll(torch.eye(3), [0, 1, 2]) == 0
    p, y = released(200, 4)
    assert nll(p, y) == pytest.approx(log_loss(y, p, labels=range(4)))


def test_a_zero_for_the_true_class_stays_finite():
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert nll(p, [1, 0]) == pytest.approx((6 * math.log(10) + math.log(2)) / 2)


@pytest.mark.parametrize("metric", [ece, nll])
@pytest.mark.parametrize(
    ("p", "y", "words"),
    [
        (torch.tensor([[2.0, -1.0]]), [0], "apply softmax"),
        (torch.tensor([[0.7, 0.7]]), [0], "apply softmax"),
        (torch.tensor([[0.5, 0.5]]), [2], "0..1"),
        (torch.tensor([[0.5, 0.5]]), [0, 1], "1 integers"),
        (torch.tensor([[math.nan, 0.5]]), [0], "NaN"),
    ],
)
def test_what_is_no_probability_is_refused(metric, p, y, words):
    with pytest.raises(UserError, match=words) as error:
        metric(p, y)
    assert str(error.value).startswith(metric.__name__)
