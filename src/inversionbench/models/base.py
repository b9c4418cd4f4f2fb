"""What a model tells besides its logits.

A classifier may have a method `trace(x) -> Trace`; `forward(x)` is then `trace(x).logits`. Defenses that
regularise hidden layers, attacks that use features and evaluators that measure distances all read this one
form. A module without `trace` reports logits only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Trace:
    """One forward pass. logits: (batch, classes). features: (batch, width), what the last layer reads, or
    None. hidden: block name -> activation (batch, ...), in the order of the forward pass; logits excluded.
    """

    logits: Tensor
    features: Tensor | None = None
    hidden: Mapping[str, Tensor] = field(default_factory=dict)


def trace(model: nn.Module, x: Tensor) -> Trace:
    """The forward pass of any classifier with what it reports."""
    if hasattr(model, "trace"):
        return model.trace(x)
    return Trace(model(x))
