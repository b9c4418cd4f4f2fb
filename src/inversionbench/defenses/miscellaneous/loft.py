"""LoFt: a last layer of low rank. Not in the survey; arXiv 2410.05814 (version 4): reconstruction.

    logits = Linear(k -> classes)(tanh(Linear(d -> k)(h)))          in place of Linear(d -> classes)(h)

strength: k, the smaller the stronger (0: the ordinary layer). The method's facts come from a description, without the
authors' settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.defense import Defense

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Loft(Defense):
    """strength: k."""

    id: ClassVar[str] = "loft"
    hooks: ClassVar[frozenset[str]] = frozenset({"build_model"})

    def __post_init__(self) -> None:
        if self.strength != int(self.strength):
            raise ValueError(f"loft: strength is a rank, a whole number, got {self.strength}")

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model = factory()
        if self.strength == 0:
            return model
        from torch import nn

        from inversionbench.defenses.miscellaneous._head import with_head

        def low_rank(width: int, classes: int) -> nn.Module:
            k = int(self.strength)
            return nn.Sequential(nn.Linear(width, k), nn.Tanh(), nn.Linear(k, classes))

        return with_head(model, low_rank, self.id)

    def public_knowledge(self) -> dict[str, Any]:
        return {"rank": int(self.strength)} if self.strength else {}
