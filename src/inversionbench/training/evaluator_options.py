"""Options of the evaluators (of `evaluators:` in params.yaml), checked without importing torch.

`first`, `second`, `attributes`, each {"model": {...}, "training": {...}}; attributes also takes "people" and
"photos" per person, or is null. An evaluator that is not more accurate than a target is marked in the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.recipe import check_recipe
from inversionbench.models.names import check_model

DEFAULTS: dict[str, dict[str, Any]] = {
    "first": {
        "model": {"name": "resnet"},
        "training": {"epochs": 8, "rate": 3e-3, "flip": True, "shift": 2},
    },
    "second": {
        "model": {"name": "plain"},
        "training": {"epochs": 10, "rate": 3e-3, "flip": True, "shift": 2, "noise": 0.2, "blur": 0.4},
    },
    "attributes": {
        "model": {"name": "cnn", "width": 24},
        "training": {"epochs": 5, "rate": 3e-3, "shift": 2},
        "people": 4000,
        "photos": 3,
    },
}


def check_options(options: Mapping[str, Any], where: str = "options") -> dict[str, Any]:
    """Options with defaults filled in; anything unknown is a `UserError`."""
    for name in options:
        if name not in DEFAULTS:
            raise UserError(f"{where}: unknown '{name}': {suggest(name, DEFAULTS)}")
    out: dict[str, Any] = {}
    for name, default in DEFAULTS.items():
        given = options.get(name, default)
        if given is None:
            if name != "attributes":
                raise UserError(f"{where}.{name}: both evaluators are needed")
            continue
        for key in given:
            if key not in default:
                raise UserError(f"{where}.{name}: unknown '{key}': {suggest(key, default)}")
        out[name] = {**default, **given}
        check_model(out[name]["model"], f"{where}.{name}.model")
        check_recipe(out[name]["training"], f"{where}.{name}.training")
    if out["first"]["model"]["name"] == out["second"]["model"]["name"]:
        raise UserError(f"{where}: first and second are both '{out['first']['model']['name']}': "
                        "two judges of one architecture share their blind spots; choose another for one")
    return out
