"""Options of the evaluators (of `evaluators:` in params.yaml), checked without importing torch.

`first`, `second`, `attributes`, each {"model": {...}, "training": {...}}; attributes also takes "people" and
"photos" per person, or is null. An evaluator that is not more accurate than a target is marked in the records.

`verifier` (training/verifier.py), or null: "width" and "features" of its network, "passes" (images it sees in all),
"training"; it is mirrored and shifted as the first evaluator is. `dlib` (training/dlib_faces.py), for real faces, off
unless given: {"crop": share of the picture's side that the face fills}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.recipe import check_recipe
from inversionbench.core.settings import check_value
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
    "verifier": {"width": 12, "features": 128, "passes": 72000, "training": {"rate": 1e-2}},
    "dlib": {"crop": 0.875},
}
NEEDED, OFF = ("first", "second"), ("dlib",)
KINDS = {"people": "Count", "photos": "Count", "width": "Count", "features": "Count", "passes": "Count",
         "crop": "PositiveShare"}  # fmt: skip


def check_options(options: Mapping[str, Any], where: str = "options") -> dict[str, Any]:
    """Options with defaults filled in; anything unknown is a `UserError`."""
    for name in options:
        if name not in DEFAULTS:
            raise UserError(f"{where}: unknown '{name}': {suggest(name, DEFAULTS)}")
    out: dict[str, Any] = {}
    for name, default in DEFAULTS.items():
        given = options.get(name, None if name in OFF else default)
        if given is None:
            if name in NEEDED:
                raise UserError(f"{where}.{name}: both evaluators are needed")
            continue
        for key in given:
            if key not in default:
                raise UserError(f"{where}.{name}: unknown '{key}': {suggest(key, default)}")
        out[name] = {**default, **given}
        for key, value in out[name].items():
            place = f"{where}.{name}.{key}"
            if key == "model":
                check_model(value, place)
            elif key == "training":
                check_recipe(value, place)
            else:
                check_value(value, KINDS[key], place)
    if out["first"]["model"]["name"] == out["second"]["model"]["name"]:
        raise UserError(f"{where}: first and second are both '{out['first']['model']['name']}': "
                        "two judges of one architecture share their blind spots; choose another for one")
    if "verifier" in out:
        same = {k: v for k, v in out["first"]["training"].items() if k in ("flip", "shift")}
        out["verifier"]["training"] = {**same, **out["verifier"]["training"]}
    return out
