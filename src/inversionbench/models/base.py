"""What a model tells besides its logits.

A classifier may have a method `trace(x) -> Trace`; `forward(x)` is then `trace(x).logits`. Defenses that
regularise hidden layers, attacks that use features and evaluators that measure distances all read this one
form. A module without `trace` reports logits only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

    Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Trace:
    """One forward pass. logits: (batch, classes). features: (batch, width), what the last layer reads, or
    None. hidden: block name -> activation (batch, ...), in the order of the forward pass; logits excluded.
    """

    logits: Tensor
    features: Tensor | None = None
    hidden: Mapping[str, Tensor] = field(default_factory=dict)


def channels_last(net: Net) -> Net:
    """Store convolutions channels last: the same network, up to 1.6 times faster on a CPU."""
    import torch

    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def trace(model: nn.Module, x: Tensor) -> Trace:
    """The forward pass of any classifier with what it reports."""
    reporter = getattr(model, "trace", None)
    return reporter(x) if reporter else Trace(model(x))
