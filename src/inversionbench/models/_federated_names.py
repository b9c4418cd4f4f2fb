"""Which networks federated clients train and what options they take, for checks that must not import torch.

`VICTIMS`: name -> option -> default. `inversionbench.models.federated.build` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inversionbench.core.errors import UserError, suggest

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
CHOICES = {"activation": ACTIVATIONS, "init": INITS, "norm": NORMS}


def check_victim(model: Mapping[str, Any], where: str) -> None:
    """Refuse an unknown network, an unknown option, or a value that the option cannot take."""
    name = model.get("name")
    if name not in VICTIMS:
        raise UserError(f"{where}.name: unknown network '{name}': {suggest(str(name), VICTIMS)}")
    known = VICTIMS[name]
    for option, value in model.items():
        if option == "name":
            continue
        if option not in known:
            raise UserError(f"{where}: '{name}' has no option '{option}': {suggest(option, known)}")
        if option in CHOICES and value not in CHOICES[option]:
            raise UserError(f"{where}.{option}: got {value!r}: {suggest(str(value), CHOICES[option])}")
        if option not in CHOICES and not _sizes(value, isinstance(known[option], list)):
            shape = "a list of positive whole numbers" if isinstance(known[option], list) else "1 or more"
            raise UserError(f"{where}.{option}: expected {shape}, got {value!r}")


def _sizes(value: Any, many: bool) -> bool:
    if many:
        return isinstance(value, (list, tuple)) and bool(value) and all(_sizes(v, False) for v in value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
