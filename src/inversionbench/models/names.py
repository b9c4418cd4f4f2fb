"""Which classifiers there are and what options they take, for checks that must not import torch.

`CLASSIFIERS`: name -> option -> default. `inversionbench.models.classifiers.build` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError, suggest

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "mlp": {"hidden": 3000, "activation": "sigmoid"},
    "cnn": {"width": 24},
    "resnet": {"width": 20, "features": 128},
    "plain": {"width": 24, "features": 128},
    "vgg16_bn": {},
    "ir152": {"features": 512},
    "facenet64": {"features": 512},
    "facenet112": {"features": 512},
    "resnet18": {"side": 224},
    "resnet152": {"side": 224},
    "inception_v3": {"side": 299},
    "vit_b_16": {"side": 224},
    "efficientnet_b0": {"side": 0},
    "efficientnet_b1": {"side": 0},
    "efficientnet_b2": {"side": 0},
}


def check_model(model: Mapping[str, Any], where: str) -> None:
    """Refuse an unknown classifier, an unknown option, or an option of another type than its default."""
    if "name" not in model:
        raise UserError(f"{where}: needs `name`. Allowed: {', '.join(sorted(CLASSIFIERS))}")
    name = model["name"]
    if name not in CLASSIFIERS:
        raise UserError(f"{where}.name: unknown classifier '{name}': {suggest(str(name), CLASSIFIERS)}")
    known = CLASSIFIERS[name]
    for option, value in model.items():
        if option == "name":
            continue
        if option not in known:
            raise UserError(f"{where}: '{name}' has no option '{option}': {suggest(option, known)}")
        kind = type(known[option])
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{where}.{option}: expected {kind.__name__}, got {value!r}")
        if kind is int and value < 1:
            raise UserError(f"{where}.{option}: expected at least 1, got {value}")
