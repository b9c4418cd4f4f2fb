"""NLL, the mean negative log-likelihood of the (defended) target's answers: a price of a defense.

NLL = -1/n sum_i log p_i[y_i] in nats, on clean test data through the release path. A release that rounds
scores answers 0 for the true class and would make the mean infinite: probabilities are floored at 1e-6
(at most 13.8 nats per answer). ln(classes) is a constant guess.
"""

from __future__ import annotations

import math
from typing import Any

from inversionbench.metrics.base import Spec
from inversionbench.metrics.ece import check_probabilities

FLOOR = 1e-6
SPEC = Spec(
    "nll", "negative log-likelihood", unit="nats", direction="lower", range=(0.0, -math.log(FLOOR)), kind="utility"
)


def nll(probabilities: Any, target: Any) -> float:
    """Mean negative log-likelihood.

    probabilities: float (n, classes) in [0, 1], rows summing to 1 (0.01 tolerated). target: int (n,). Returns
    nats in [0, 13.8]; lower is better. Raises `UserError` for other shapes or values.

    >>> import torch
    >>> round(nll(torch.tensor([[0.5, 0.5], [0.25, 0.75]]), [0, 0]), 4)
    1.0397
    """
    p, y = check_probabilities(probabilities, target, SPEC.id)
    return float(-p.gather(1, y[:, None]).clamp(FLOOR, 1).log().mean()) + 0.0
