"""Defenses of one attribute of a table: they are told where it lies among the columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import Whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from inversionbench.data.base import Dataset


@dataclass(frozen=True)
class OfColumn(Defense):
    """column: (start, stop) in x (n, columns), the sensitive attribute; set by `prepare`."""

    column: tuple[Whole, Whole] = (0, 0)

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Any:
        from inversionbench.models.columns import ask

        asked = ask(data.meta)
        return replace(self, column=(asked.start, asked.stop))
