"""The rounds of a small federation around an attacked one. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inversionbench.core.ranges import Count, NonNegative, ShareBelowOne, Whole
from inversionbench.core.settings import parse


@dataclass(frozen=True)
class Rounds:
    """How a table's global model is trained.

    rounds: before the attacked round (0: untrained). utility_rounds: rounds after which the accuracy of a model
    trained with the defense is measured (0: not measured). In each round `clients` clients, drawn anew, send
    the update of `batch` rows; the server takes the mean with `momentum` at `rate`.
    """

    rounds: Whole = 0
    utility_rounds: Whole = 0
    clients: Count = 8
    batch: Count = 32
    rate: NonNegative = 0.1
    momentum: ShareBelowOne = 0.9


def read_rounds(given: Mapping[str, Any], where: str) -> Rounds:
    """The rounds of a scenario; `UserError` for what it does not know or cannot be."""
    return parse(Rounds, given, where)
