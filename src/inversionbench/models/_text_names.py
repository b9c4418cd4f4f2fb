"""Which language models there are and what options they take, for checks that must not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError
from inversionbench.core.settings import check_options

TASKS = ("language", "class")
MODELS: dict[str, dict[str, Any]] = {
    "decoder": {"width": 128, "blocks": 2, "heads": 4, "vocabulary": 1000, "length": 18, "task": "language"},
}
SMALLEST = {"width": 4, "blocks": 2, "heads": 1, "vocabulary": 5, "length": 3}


def options_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model, defaults included."""
    return {**MODELS[model["name"]], **{k: v for k, v in model.items() if k != "name"}}


def check_model(model: Mapping[str, Any]) -> None:
    """Refuse an unknown model, an unknown option, or a value that the option cannot take."""
    kinds = {**dict.fromkeys(SMALLEST, "Count"), "task": f"Literal{list(TASKS)}"}
    check_options(model, MODELS, kinds, "model", "model")
    options = options_of(model)
    for option, least in SMALLEST.items():
        if options[option] < least:
            raise UserError(f"model.{option}: expected a whole number of at least {least}, got {options[option]}")
    if options["width"] % options["heads"]:
        raise UserError(f"model.heads: expected a divisor of the width {options['width']}, got {options['heads']}")
