"""Which classifiers there are and what options they take, for checks that must not import torch.

`CLASSIFIERS`: name -> option -> default. `inversionbench.models.classifiers.build` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.settings import check_options
from inversionbench.models._own_names import NAME, OPTIONS, check_own

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "mlp": {"hidden": 3000, "activation": "sigmoid"},
    "cnn": {"width": 24, "norm": "batch"},
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


KINDS = {"hidden": "Count", "width": "Count", "features": "Count", "side": "Count",
         "activation": 'Literal["sigmoid", "relu"]', "norm": 'Literal["batch", "group"]'}  # fmt: skip


def check_model(model: Mapping[str, Any], where: str) -> None:
    """Refuse an unknown classifier, an unknown option, or a value that the option cannot take."""
    if model.get("name") == NAME:
        return check_own(model, where)
    return check_options(model, {**CLASSIFIERS, NAME: OPTIONS}, KINDS, where, "classifier")
