"""Options of the evaluators that the federated track measures perceptual distances with; no torch.

Two small classifiers of the data set (`first`, `second`, as in training/evaluator_options.py), both with ReLU
stages, because the distance compares feature maps of such stages. Without options: a `resnet` and a `cnn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.training.evaluator_options import DEFAULTS, check_options

# blocks whose output went through a ReLU last (or through a maximum over ReLUs): three to five maps
STAGES = {
    "cnn": ("block1", "block2", "block3", "block4"),
    "resnet": ("block1", "block2", "block3"),
    "vgg16_bn": ("block1", "block2", "block3", "block4", "block5"),
    "resnet18": ("block1", "block2", "block3", "block4"),
    "resnet152": ("block1", "block2", "block3", "block4"),
}
ALONE = {"attributes": None, "verifier": None}  # what judges people is of no use here
SECOND = {"model": {"name": "cnn"}, "training": DEFAULTS["second"]["training"]}


def check_perceptual(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with defaults filled in, as `train_evaluators` takes them; `UserError` for anything else."""
    for name, value in options.items():
        if name in ALONE and value is None:
            continue
        if name not in ("first", "second"):
            raise UserError(f"options: unknown '{name}' for the federated track: {suggest(name, ('first', 'second'))}")
    full = check_options({**options, "second": {**SECOND, **(options.get("second") or {})}, **ALONE})
    for name in ("first", "second"):
        check_stages(full[name]["model"]["name"], f"options.{name}.model.name")
    return {"first": full["first"], "second": full["second"], **ALONE}


def check_stages(model: str, where: str) -> tuple[str, ...]:
    """The blocks of a network to compare; a `UserError` for one without ReLU stages."""
    if model not in STAGES:
        raise UserError(f"{where}: '{model}' has no ReLU stages to compare; choose one of {', '.join(STAGES)}")
    return STAGES[model]
