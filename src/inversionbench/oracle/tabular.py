"""Oracles of a table's classifier: scores, labels, or a tree with its leaf counts.

They are the classifier's oracles; only what counts as a valid input is the table's own: a record in the
declared range whose categorical columns each hold exactly one category.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from inversionbench.core.defense import NONE, Defense
from inversionbench.models import tabular
from inversionbench.oracle.base import Oracle, RecordSpec
from inversionbench.oracle.classifier import classifier_oracle


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
