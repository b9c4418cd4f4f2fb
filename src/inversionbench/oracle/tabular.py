"""Oracles of a table's classifier: scores, labels, or a tree with its leaf counts.

They are the classifier's oracles; only what counts as a valid input is the table's own: a record in the
declared range whose categorical columns each hold exactly one category.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from inversionbench.core.defense import NONE, Defense
from inversionbench.models import tabular
from inversionbench.oracle.base import InputSpec, Oracle
from inversionbench.oracle.classifier import classifier_oracle


@dataclass(frozen=True)
class RecordSpec(InputSpec):
    """x: (n, columns). one_hot: (start, stop) of each categorical column."""

    one_hot: tuple[tuple[int, int], ...] = ()

    def check(self, x: Any) -> None:
        super().check(x)
        for start, stop in self.one_hot:
            part = x[:, start:stop]
            if not (((part == 0) | (part == 1)).all() and (part.sum(1) == 1).all()):
                raise ValueError(f"columns {start} to {stop - 1} are one category: expected a single 1 among zeros")


def tabular_oracle(
    released: Mapping[str, Any], level: str, defense: Defense = NONE, seed: int = 0, twin: bool = False,
    budget: int | None = None,
) -> Oracle:
    """The oracle of what `tracks.tabular.target.publish` released. twin: of the target trained on swapped values.

    seed: of the random numbers of a release. One query is one record.
    """
    low, high = released["range"]
    width = released["question"]["width"]
    spec = RecordSpec((width,), low, high, one_hot=tuple(released["one_hot"]))
    model = tabular.load(released["twin" if twin else "model"], defense)
    rng = torch.Generator().manual_seed(seed)
    return classifier_oracle(model, level, spec, released["classes"], defense, rng, budget)
