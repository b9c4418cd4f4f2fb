"""Control: explanations for model inversion, where every victim's scores come with another victim's explanation.

Everything is as in `xai_inversion`; only at the end are the victims' explanations dealt to others. An attack that does
not beat this row has learnt nothing from explanations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.tracks.answers.attacks.xai_inversion import Maps, XaiInversion

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class ShuffledExplanation(XaiInversion):
    """The parameters of `xai_inversion`."""

    id = "shuffled_explanation"
    control = True

    def given(self, oracle: Oracle, images: Tensor) -> Maps:
        known, asked = super().given(oracle, images)
        return known, asked.roll(1, 0)
