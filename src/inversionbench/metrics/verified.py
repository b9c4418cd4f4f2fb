"""Verified: is an image as like the attacked person as only 1 % of other people's photographs are?

verified = 1/N sum_i 1[s(x_i, y_i) > t], with s the similarity to the private photographs of a person, and t such that
at most 1 % of the pairs (held-out photograph, another private person) pass: the true match rate at a false match rate
of 1 % (ISO/IEC 19795-1). `identified` asks who is most alike, this one whether it is alike at all: an image that shows
nobody may still be more like one person than like the others.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.core.quantity import Quantity
from inversionbench.metrics.base import Spec, check_features, check_labels

SPEC = Spec(
    "verified",
    "verified at 1 % false matches",
    unit="%",
    digits=1,
    factor=100,
    direction="higher",
    range=(0.0, 1.0),
    kind="protocol",
    note=(
        "share of reconstructions that the verifier finds more like the private photographs of the attacked person "
        "than 99 % of the held-out photographs of other people are"
    ),
)
FURTHER = (
    Quantity(
        "dlib_verified",
        "dlib verifies at 1 % false matches",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="the same by dlib's network, with a threshold of its own",
    ),
)
FALSE_MATCHES = 0.01


def verified(similarities: Any, target: Any, threshold: float) -> Tensor:
    """Whether the similarity to the attacked person lies above the threshold: bool (n,).

    similarities: float (n, people). target: int (n,). Higher means more leakage. Raises `UserError` for other shapes.

    >>> import torch
    >>> verified(torch.tensor([[0.9, 0.1], [0.8, 0.3]]), [0, 1], threshold=0.5)
    tensor([ True, False])
    """
    own, _ = _parts(similarities, target)
    return own > threshold


def threshold(similarities: Any, target: Any, rate: float = FALSE_MATCHES) -> float:
    """The smallest similarity that at most a share `rate` of the pairs of different people exceeds.

    similarities: float (n, people), of photographs of the people `target` (n,).

    >>> import torch
    >>> threshold(torch.tensor([[1.0, 0.25], [0.5, 1.0]]), [0, 1], rate=0.5)
    0.25
    """
    _, others = _parts(similarities, target)
    ranked = others.sort(descending=True).values
    return float(ranked[int(rate * len(ranked))])  # as it is: rounded down, the pair that sets it would exceed it


def _parts(similarities: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Similarities to the own person (n,), and all to other people."""
    seen = check_features(similarities, SPEC.id, "similarities")
    y = check_labels(target, len(seen), SPEC.id, "target").to(seen.device)
    if seen.shape[1] < 2 or y.min() < 0 or y.max() >= seen.shape[1]:
        raise UserError(f"verified: needs two people and targets among them, got {seen.shape[1]} and {y.unique()}")
    own = y[:, None] == y.new_tensor(range(seen.shape[1]))
    return seen[own], seen[~own]
