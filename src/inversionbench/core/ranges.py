"""Ranges of parameters, as annotations of fields: `iterations: Count = 300`.

The registry reads them from the source text and checks every value of params.yaml before any job runs. A field that is
a plain `int` or `float` takes any finite number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Count = int
Whole = int
Positive = float
NonNegative = float
Share = float
PositiveShare = float
ShareBelowOne = float
Probability = float


@dataclass(frozen=True)
class Range:
    """Whole numbers or numbers from `low` to `high`, or (`open_low`, `open_high`) strictly between them."""

    says: str
    whole: bool = False
    low: float = float("-inf")
    high: float = float("inf")
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value of YAML is in the range; true and false are no numbers.

        >>> RANGES["Count"].holds(1), RANGES["Count"].holds(0), RANGES["Count"].holds(1.0), RANGES["Share"].holds(1)
        (True, False, False, True)
        """
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)


LARGE = 1e12  # no parameter is meant to be larger; keeps overflow out
RANGES = {
    "int": Range("a whole number", whole=True, low=-LARGE, high=LARGE),
    "float": Range("a number", low=-LARGE, high=LARGE),
    "Count": Range("a whole number of at least 1", whole=True, low=1, high=LARGE),
    "Whole": Range("a whole number of at least 0", whole=True, low=0, high=LARGE),
    "Positive": Range("a number above 0", low=0, high=LARGE, open_low=True),
    "NonNegative": Range("a number of at least 0", low=0, high=LARGE),
    "Share": Range("a number from 0 to 1", low=0, high=1),
    "PositiveShare": Range("a number above 0 and at most 1", low=0, high=1, open_low=True),
    "ShareBelowOne": Range("a number from 0 to below 1", low=0, high=1, open_high=True),
    "Probability": Range("a number between 0 and 1, both excluded", low=0, high=1, open_low=True, open_high=True),
}
