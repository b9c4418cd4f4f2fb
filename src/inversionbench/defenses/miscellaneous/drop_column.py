"""Control: a model that never sees the sensitive column. What the attribute costs where it is simply left out.

Nothing can be inferred through such a model beyond what the other columns tell without it, so a defense has to be
compared with the accuracy that is left here. strength: 1 (0: off). A tree is grown without splits on the column; a
network gets 0 in its place, in training and when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.ranges import NonNegative
from inversionbench.defenses._column import OfColumn

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class DropColumn(OfColumn):
    """strength: 0 or 1."""

    id = "drop_column"
    hooks = frozenset({"build_model"})
    inputs = ("table",)
    models = ("tree", "pruned_tree", "mlp", "early_mlp", "logistic")

    strength: NonNegative = 0.0

    def __post_init__(self) -> None:
        if self.strength not in (0, 1):
            raise ValueError(f"strength: a column is dropped or not, 1 or 0, got {self.strength}")

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model: Any = factory()
        if self.strength == 0:
            return model
        from inversionbench.models.cart import Learner
        from inversionbench.models.tabular import Blind

        if isinstance(model, Learner):
            return replace(model, penalty=1.0)  # type: ignore[return-value]
        return Blind(model, self.column)
