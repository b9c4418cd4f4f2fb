"""The last layer of a classifier, which some defenses replace."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from inversionbench.core.errors import UserError


def with_head(model: nn.Module, make: Callable[[int, int], nn.Module], defense: str) -> nn.Module:
    """The network with `make(features, classes)` in place of its last layer. Raises `UserError` where it has none."""
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear) or not hasattr(model, "trace"):
        raise UserError(f"{defense}: {type(model).__name__} has no last linear layer that could be replaced: take one "
                        "of the classifiers of the classifier track")  # fmt: skip
    model.head = make(head.in_features, head.out_features)
    return model
