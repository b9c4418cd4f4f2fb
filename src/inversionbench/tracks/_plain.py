"""A defense as plain values, as it stands in what a target released, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from inversionbench.core import registry
from inversionbench.core.defense import NONE, Defense


def plain(defense: Defense) -> dict[str, Any]:
    """Its id and its fields; sequences as lists."""
    params = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(defense).items()}
    return {"id": defense.id, "params": params}


def rebuilt(found: Mapping[str, Any]) -> Defense:
    """The defense again."""
    if found["id"] == "none":
        return NONE
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in found["params"].items()}
    return registry.get("defense", found["id"])(**params)


def acting(released: Mapping[str, Any], defense: Defense) -> Defense:
    """What acts on a target's answers: `defense`, or as the target's training made it where it learnt from that."""
    own = rebuilt(released["defense"])
    return own if own.learnt else defense
