"""What a client may have done to an image before it took the gradient, as its attacker can compute it.

A change is a list of (operation, amount) as `apply` of the augmentation policies takes them; directions are drawn by
the client, so every image has several possible changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from inversionbench.models.operations import ENHANCEMENTS, GEOMETRIC, apply

Change = tuple[tuple[str, float], ...]
FLAT = ("posterize", "equalize")  # gradients are zero or missing: taken as those of the identity


def changes(public: Mapping[str, Any], label: int) -> list[Change]:
    """All changes that an image of this class may have gone through, by what is public of the defense; the empty
    change where nothing is.

    >>> changes({"policy": "rotate,invert", "amounts": {"rotate": 9.0, "invert": 0.0}}, 0)
    [(('rotate', 9.0),), (('rotate', -9.0),)]
    >>> changes({"operations": [[["brightness", 0.25], ["invert", 0.0]]]}, 3)
    [(('brightness', 1.25), ('invert', 0.0)), (('brightness', 0.75), ('invert', 0.0))]
    >>> changes({}, 0)
    [()]
    """
    if "operations" in public:  # policies, of which each image draws one
        policies = [[(name, 1 + value if name in ENHANCEMENTS else value) for name, value in policy]
                    for policy in public["operations"]]
    elif public.get("policy") and "amounts" in public:  # one operation for every class
        names = public["policy"].split(",")
        name = names[label % len(names)]
        policies = [[(name, public["amounts"][name])]]
    else:
        return [()]
    found = [change for policy in policies for change in product(*(_directions(*step) for step in policy))]
    return list(dict.fromkeys(found))


def _directions(name: str, amount: float) -> list[tuple[str, float]]:
    """Both directions of an operation, or its only one."""
    if name in GEOMETRIC and amount:
        return [(name, amount), (name, -amount)]
    if name in ENHANCEMENTS and amount != 1:
        return [(name, amount), (name, round(2 - amount, 6))]
    return [(name, amount)]


class Changed:
    """x (n, c, h, w) in [0, 1] to each image's own change of it, differentiable in x."""

    def __init__(self, rows: Sequence[Change]):
        self.groups = [(change, [i for i, row in enumerate(rows) if row == change]) for change in dict.fromkeys(rows)]
        self.back = torch.tensor([i for _, index in self.groups for i in index]).argsort()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([_one(x[index], change) for change, index in self.groups])[self.back.to(x.device)]


def _one(x: Tensor, change: Change) -> Tensor:
    for name, amount in change:
        flat = name in FLAT
        done = apply(x.detach() if flat else x, name, amount)
        x = x + (done - x).detach() if flat else done
    return x
