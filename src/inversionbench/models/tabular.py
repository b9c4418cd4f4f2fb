"""The targets of the tabular track: decision trees as arrays, and a small network. By name, through files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from inversionbench.core.defense import NONE, Defense
from inversionbench.models import trees
from inversionbench.models._tabular_names import MODELS
from inversionbench.models.base import Trace


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


def options_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model, defaults included."""
    return {**MODELS[model["name"]], **{k: v for k, v in model.items() if k != "name"}}


def state_of(model: nn.Module, options: Mapping[str, Any], columns: int, classes: int) -> dict[str, Any]:
    """A trained target as plain tensors and numbers, for `torch.save`."""
    if isinstance(model, trees.TreeModel):
        return {"trees": model.trees.state()}
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return {"hidden": list(options["hidden"]), "columns": columns, "classes": classes, "weights": weights}


def load(state: Mapping[str, Any], defense: Defense = NONE) -> nn.Module:
    """The target from its state, in evaluation mode. defense: the one it was trained with (its H3)."""
    if "trees" in state:
        return trees.TreeModel(trees.from_state(state["trees"])).eval()
    model = defense.build_model(lambda: MLP(state["columns"], state["hidden"], state["classes"]))
    model.load_state_dict(state["weights"])
    return model.eval()
