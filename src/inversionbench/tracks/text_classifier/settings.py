"""What a scenario of this track may say, for checks that must not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError
from inversionbench.core.settings import check_options

MODELS: dict[str, dict[str, Any]] = {"encoder": {"width": 64, "blocks": 2, "heads": 4, "vocabulary": 400, "length": 12}}
RECIPE: dict[str, Any] = {"epochs": 5, "batch": 64, "optimiser": "adamw", "rate": 4e-3, "schedule": "one_cycle"}


def options_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model, defaults included."""
    return {**MODELS[model["name"]], **{k: v for k, v in model.items() if k != "name"}}


def check_model(model: Mapping[str, Any]) -> None:
    """Refuse an unknown model, an unknown option, or a value that the option cannot take."""
    check_options(model, MODELS, dict.fromkeys(MODELS["encoder"], "Count"), "model", "model")
    options = options_of(model)
    if options["width"] % options["heads"]:
        raise UserError(f"model.heads: expected a divisor of the width {options['width']}, got {options['heads']}")
