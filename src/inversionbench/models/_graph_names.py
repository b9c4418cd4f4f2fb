"""Which node classifiers the graph track attacks, and how they are trained, for checks that must not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.recipe import Recipe, check_recipe
from inversionbench.core.settings import check_options

MODELS: dict[str, dict[str, Any]] = {"gcn": {"hidden": 16, "dropout": 0.5}}
KINDS = {"hidden": "Count", "dropout": "ShareBelowOne"}
# of Kipf and Welling, and of GraphMI's code: every step sees the whole graph
RECIPE = {
    "epochs": 200, "batch": 1_000_000, "optimiser": "adam", "rate": 0.01, "weight_decay": 5e-4, "schedule": "constant",
}  # fmt: skip


def check_model(model: Mapping[str, Any]) -> None:
    """Refuse an unknown model, an unknown option, or a value that the option cannot take."""
    check_options(model, MODELS, KINDS, "model", "model")


def options_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model, defaults included."""
    return {**MODELS[model["name"]], **{k: v for k, v in model.items() if k != "name"}}


def recipe_of(training: Mapping[str, Any]) -> Recipe:
    """The recipe of a target, checked; nodes are neither flipped nor shifted."""
    for option in training:
        if option not in RECIPE:
            raise UserError(f"training: '{option}' is not for graphs: {suggest(option, RECIPE)}")
    return check_recipe({**RECIPE, **training}, "training")
