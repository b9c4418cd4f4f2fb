"""Which models attribute inference attacks, and their options, for checks that must not import torch.

Four stand for two ways of overfitting and how each is stopped: a tree grown until every leaf is pure,
the same of limited depth; a network trained to the end, the same stopped early. The fifth is a risk model as hospitals
use it: logistic regression by full-batch gradient descent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.recipe import check_recipe
from inversionbench.core.settings import check_options, check_value

MODELS: dict[str, dict[str, Any]] = {
    "tree": {"depth": None, "leaf": 1},
    "pruned_tree": {"depth": 8, "leaf": 5},
    "mlp": {"hidden": [64, 64]},
    "early_mlp": {"hidden": [64, 64]},
    "logistic": {},
}
TREES = ("tree", "pruned_tree")

# how the networks are trained (fields of training.recipe.Recipe)
_RECIPE = {"batch": 100, "optimiser": "adam", "rate": 3e-3, "weight_decay": 0.0, "schedule": "constant"}
RECIPES: dict[str, dict[str, Any]] = {
    "mlp": {"epochs": 80, **_RECIPE},
    "early_mlp": {"epochs": 6, **_RECIPE},
    "logistic": {"epochs": 50, "batch": 10**9, "optimiser": "sgd", "rate": 0.5, "momentum": 0.0, "weight_decay": 1e-3,
                 "schedule": "constant"},
}  # fmt: skip


KINDS = {"depth": "Count | None", "leaf": "Count", "hidden": "tuple[Count, ...]"}


def check_model(model: Mapping[str, Any]) -> None:
    """Refuse an unknown model, an unknown option, or a value that the option cannot take."""
    check_options(model, MODELS, KINDS, "model", "model")


def check_training(name: str, training: Mapping[str, Any]) -> None:
    """Refuse a recipe that the model does not take."""
    allowed = ["members", "swap", *RECIPES.get(name, ())]
    for option, value in training.items():
        if option not in allowed:
            raise UserError(f"training: '{name}' takes no '{option}': {suggest(option, allowed)}")
        if kind := {"members": "Count", "swap": "Share"}.get(option):
            check_value(value, kind, f"training.{option}")
    check_recipe({k: v for k, v in training.items() if k not in ("members", "swap")}, "training")
