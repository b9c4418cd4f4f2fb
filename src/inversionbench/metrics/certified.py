"""Certified share: of how many batches an attack says that its answer is exact, and how often that is wrong.

An attack that checks its own answer (SPEAR's certificate) tells exact batches from failures without the truth. A
certificate is wrong where the answer differs from the batch by more than a certified answer may.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Spec

SPEC = Spec(
    "certified",
    "certified share",
    unit="%",
    digits=1,
    factor=100,
    direction="higher",
    range=(0.0, 1.0),
    kind="protocol",
    note="batches of which the attack itself proves that its answer is exact",
)


def certified(claims: Sequence[bool], right: Any) -> tuple[np.ndarray, int]:
    """(1 where a batch is certified, float64 (batches,); how many certificates are wrong). right: bool (batches,),
    whether the answer is exact. Raises `UserError` where the two differ in length.

    >>> certified([True, True, False], [True, False, False])
    (array([1., 1., 0.]), 1)
    """
    said, holds = np.asarray(claims, dtype=bool), np.asarray(right, dtype=bool)
    if said.shape != holds.shape or said.ndim != 1:
        raise UserError(f"certified: expected one claim and one truth for each batch, got {said.shape}, {holds.shape}")
    return said.astype(np.float64), int((said & ~holds).sum())
