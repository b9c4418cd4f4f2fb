"""Control: a text classifier that reads every entity as an unknown word, in training and when it is asked.

Nothing of who or what is named can leak then, and nothing of it can help: the accuracy that is left is what a defense
of entities has to be compared with. strength: 1 (0: off).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import NonNegative, Whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from inversionbench.data.base import Dataset


@dataclass(frozen=True)
class DropEntities(Defense):
    """strength: 0 or 1. tokens: the numbers of the entities, set by `prepare`."""

    id = "drop_entities"
    hooks = frozenset({"build_model"})
    inputs = ("text",)
    models = ("encoder",)

    strength: NonNegative = 0.0
    tokens: tuple[Whole, ...] = ()

    def __post_init__(self) -> None:
        if self.strength not in (0, 1):
            raise ValueError(f"strength: entities are dropped or not, 1 or 0, got {self.strength}")

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Any:
        named = {word for words in data.meta["entities"].values() for word in words}
        return replace(self, tokens=tuple(i for i, word in enumerate(data.meta["words"]) if word in named))

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model: Any = factory()
        if self.strength and self.tokens:
            from inversionbench.models.text import UNKNOWN

            model.reads[list(self.tokens)] = UNKNOWN  # part of its state
        return model
