"""A measured quantity as people read it: what it is called, its unit and digits, and which way means more leakage.

Every module below `metrics/`, and the evaluation of a track, states its quantities as constants of its module, with
plain values; the registry reads them from the text, so that tables can be drawn without importing what measures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Quantity:
    """One metric, utility or control level as it is shown: `factor` times the value, with `digits`. `note` says what
    it is."""

    id: str
    label: str
    unit: str = ""
    digits: int = 3
    factor: float = 1.0
    direction: str = ""
    note: str = ""

    @property
    def step(self) -> float:
        """The last digit shown, in shown units."""
        return 10.0**-self.digits

    @property
    def title(self) -> str:
        """Label with unit, for axes and column heads."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def show(self, value: float | None, sign: bool = False) -> str:
        """`value` for a table; an empty string where there is none.

        >>> Quantity("psnr", "PSNR", "dB", 1).show(20.512), Quantity("a", "A", "%", 0, 100).show(-0.1, True)
        ('20.5', '\N{MINUS SIGN}10')
        """
        if value is None or math.isnan(value):
            return ""
        text = f"{value * self.factor:.{self.digits}f}"
        if float(text) == 0:
            text = text.lstrip("-")
        return (("+" if sign and float(text) > 0 else "") + text).replace("-", MINUS)

    def span(self, low: float, high: float) -> str:
        """The interval for a table, or an empty string."""
        if low is None or high is None or math.isnan(low) or math.isnan(high):
            return ""
        return f"[{self.show(low)}, {self.show(high)}]"
