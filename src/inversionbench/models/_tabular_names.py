"""Which models attribute inference attacks, and their options, for checks that must not import torch.

The four stand for two ways of overfitting and how each is stopped: a tree grown until every leaf is pure,
the same of limited depth; a network trained to the end, the same stopped early.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.recipe import check_recipe

MODELS: dict[str, dict[str, Any]] = {
    "tree": {"depth": None, "leaf": 1},
    "pruned_tree": {"depth": 8, "leaf": 5},
    "mlp": {"hidden": [64, 64]},
    "early_mlp": {"hidden": [64, 64]},
}
TREES = ("tree", "pruned_tree")

# how the networks are trained (fields of training.recipe.Recipe)
_RECIPE = {"batch": 100, "optimiser": "adam", "rate": 3e-3, "weight_decay": 0.0, "schedule": "constant"}
RECIPES: dict[str, dict[str, Any]] = {"mlp": {"epochs": 80, **_RECIPE}, "early_mlp": {"epochs": 6, **_RECIPE}}


def check_model(model: Mapping[str, Any]) -> None:
    """Refuse an unknown model, an unknown option, or a value that the option cannot take."""
    name = str(model.get("name"))
    if name not in MODELS:
        raise UserError(f"model.name: unknown model '{name}': {suggest(name, MODELS)}")
    for option, value in model.items():
        if option == "name":
            continue
        if option not in MODELS[name]:
            raise UserError(f"model: '{name}' has no option '{option}': {suggest(option, MODELS[name])}")
        if option == "hidden" and not (isinstance(value, list) and all(_size(v) for v in value)):
            raise UserError(f"model.hidden: expected a list of positive whole numbers, got {value!r}")
        fits = _size(value) or (option == "depth" and value is None)
        if option in ("leaf", "depth") and not fits:
            raise UserError(f"model.{option}: expected a positive whole number, got {value!r}")


def check_training(name: str, training: Mapping[str, Any]) -> None:
    """Refuse a recipe that the model does not take."""
    allowed = ["members", "swap", *RECIPES.get(name, ())]
    for option, value in training.items():
        if option not in allowed:
            raise UserError(f"training: '{name}' takes no '{option}': {suggest(option, allowed)}")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if option == "members" and not _size(value):
            raise UserError(f"training.members: expected a positive whole number of rows, got {value!r}")
        if option == "swap" and not (number and 0 <= value <= 1):
            raise UserError(f"training.swap: expected a share in [0, 1], got {value!r}")
    check_recipe({k: v for k, v in training.items() if k not in ("members", "swap")}, "training")


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
