"""Which networks federated clients train and what options they take, for checks that must not import torch.

`VICTIMS`: name -> option -> default. `inversionbench.models.federated.build` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.settings import check_options
from inversionbench.models._own_names import NAME, OPTIONS, check_own

ACTIVATIONS = ("relu", "sigmoid", "tanh", "leaky_relu", "silu")
INITS = ("default", "uniform")
NORMS = ("none", "batch")

VICTIMS: dict[str, dict[str, Any]] = {
    "lenet": {"activation": "sigmoid", "init": "uniform", "channels": 12},
    "convnet": {"widths": [8, 16, 32], "activation": "relu", "norm": "none", "init": "default"},
    "resnet8": {"width": 16, "norm": "batch", "activation": "relu", "init": "default"},
    "resnet18": {"width": 64, "norm": "batch", "activation": "relu", "init": "default"},
    "resnet20": {"width": 16, "norm": "batch", "activation": "relu", "init": "default"},
    "mlp": {"widths": [120, 84], "activation": "relu", "init": "default"},
    "vit": {"width": 64, "depth": 2, "heads": 4, "patch": 4, "init": "default"},
}
KINDS = {
    **dict.fromkeys(("channels", "width", "depth", "heads", "patch"), "Count"), "widths": "tuple[Count, Count, ...]",
    "activation": f"Literal{list(ACTIVATIONS)}", "init": f"Literal{list(INITS)}", "norm": f"Literal{list(NORMS)}",
}  # fmt: skip


def check_victim(model: Mapping[str, Any], where: str) -> None:
    """Refuse an unknown network, an unknown option, or a value that the option cannot take."""
    if model.get("name") == NAME:
        return check_own(model, where)
    return check_options(model, {**VICTIMS, NAME: OPTIONS}, KINDS, where, "network")
