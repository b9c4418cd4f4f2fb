"""The targets of the tabular track: decision trees as arrays, a small network, a risk model. By name, through files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import NONE, Defense
from inversionbench.models import trees
from inversionbench.models._tabular_names import MODELS
from inversionbench.models.base import Trace, trace


class MLP(nn.Module):
    """Fully connected layers with ReLU between them. x: (n, columns) -> logits (n, classes)."""

    def __init__(self, columns: int, hidden: Sequence[int], classes: int):
        super().__init__()
        widths = [columns, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.fc = nn.Linear(widths[-1], classes)

    def trace(self, x: Tensor) -> Trace:
        hidden = {}
        for i, layer in enumerate(self.layers):
            x = hidden[f"layer{i}"] = layer(x).relu()
        return Trace(self.fc(x), x, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits


class Logistic(nn.Module):
    """Logistic regression, from zero; the first class is the reference. x: (n, columns) -> logits (n, classes).

    Of two classes it is the risk model p = 1 / (1 + exp(-x theta)) with one coefficient per column.
    """

    def __init__(self, columns: int, classes: int):
        super().__init__()
        self.fc = nn.Linear(columns, classes - 1)
        for parameter in self.fc.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        odds = self.fc(x)
        return torch.cat([odds.new_zeros(len(x), 1), odds], dim=1)


def within(x: Tensor, bound: float, order: int) -> Tensor:
    """Rows whose norm is larger than the bound, shortened to it. x: (n, columns). order: 1 or 2, of the norm."""
    return x * (bound / x.norm(p=order, dim=1, keepdim=True).clamp_min(bound))


class Rescaled(nn.Module):
    """A model of rows whose norm is at most `bound`, see `within`."""

    def __init__(self, model: nn.Module, bound: float, order: int):
        super().__init__()
        self.model, self.bound, self.order = model, bound, order

    def forward(self, x: Tensor) -> Tensor:
        return self.model(within(x, self.bound, self.order))


class Blind(nn.Module):
    """A model that never sees its columns start..stop-1: 0 stands there. They are part of its state."""

    column: Tensor

    def __init__(self, model: nn.Module, column: tuple[int, int]):
        super().__init__()
        self.model = model
        self.register_buffer("column", torch.tensor(column))

    def trace(self, x: Tensor) -> Trace:
        start, stop = self.column.tolist()
        x = x.clone()
        x[:, start:stop] = 0
        return trace(self.model, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits


def build(options: Mapping[str, Any], columns: int, classes: int) -> nn.Module:
    """A network with fresh weights; one without the option `hidden` is the risk model."""
    return MLP(columns, options["hidden"], classes) if "hidden" in options else Logistic(columns, classes)


def options_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model, defaults included."""
    return {**MODELS[model["name"]], **{k: v for k, v in model.items() if k != "name"}}


def state_of(model: nn.Module, options: Mapping[str, Any], columns: int, classes: int) -> dict[str, Any]:
    """A trained target as plain tensors and numbers, for `torch.save`."""
    if isinstance(model, trees.TreeModel):
        return {"trees": model.trees.state()}
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    widths = {"hidden": list(options["hidden"])} if "hidden" in options else {}
    return {**widths, "columns": columns, "classes": classes, "weights": weights}


def load(state: Mapping[str, Any], defense: Defense = NONE) -> nn.Module:
    """The target from its state, in evaluation mode. defense: the one it was trained with (its H3)."""
    if "trees" in state:
        return trees.TreeModel(trees.from_state(state["trees"])).eval()
    model = defense.build_model(lambda: build(state, state["columns"], state["classes"]))
    model.load_state_dict(state["weights"])
    return model.eval()
