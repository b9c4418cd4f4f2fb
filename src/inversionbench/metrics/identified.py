"""Identified: is the attacked person the one whom a verifier finds most alike?

identified = 1/N sum_i 1[y_i = argmax_c s(x_i, c)], with s(x, c) the similarity of an image to the private photographs
of person c (rank 1 of closed-set identification, ISO/IEC 19795-1). The verifier was taught by public people alone, so
nothing that fools networks trained on the private people needs to fool it. Chance is 1 / people; held-out photographs
of the private people give the ceiling.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inversionbench.core.quantity import Quantity
from inversionbench.metrics.attack_accuracy import hits
from inversionbench.metrics.base import Spec

SPEC = Spec(
    "identified",
    "verifier identifies",
    unit="%",
    digits=1,
    factor=100,
    direction="higher",
    range=(0.0, 1.0),
    kind="protocol",
    note=(
        "share of reconstructions which a network that was taught by public people alone finds more like the private "
        "photographs of the attacked person than like those of any other"
    ),
)
FURTHER = (
    Quantity(
        "dlib_identified",
        "dlib identifies",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="the same by dlib's network, which was taught by three million photographs of real faces",
    ),
)


def identified(similarities: Any, target: Any) -> Tensor:
    """Whether nobody else is as similar: bool (n,).

    similarities: float (n, people), of each image to each private person. target: int (n,), whom the images claim to
    show. Higher means more leakage; a tie is a miss. Raises `UserError` for other shapes or people out of range.

    >>> import torch
    >>> identified(torch.tensor([[0.9, 0.1], [0.4, 0.3]]), [0, 1])
    tensor([ True, False])
    """
    return hits(similarities, target)
