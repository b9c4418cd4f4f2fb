"""The rounds of a small federation around an attacked one. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from inversionbench.core.errors import UserError, suggest


@dataclass(frozen=True)
class Rounds:
    """How a table's global model is trained.

    rounds: before the attacked round (0: untrained). utility_rounds: rounds after which the accuracy of a model
    trained with the defense is measured (0: not measured). In each round `clients` clients, drawn anew, send
    the update of `batch` rows; the server takes the mean with `momentum` at `rate`.
    """

    rounds: int = 0
    utility_rounds: int = 0
    clients: int = 8
    batch: int = 32
    rate: float = 0.1
    momentum: float = 0.9


def read_rounds(given: Mapping[str, Any], where: str) -> Rounds:
    """The rounds of a scenario; `UserError` for what it does not know or cannot be."""
    known = {f.name: f.default for f in fields(Rounds)}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"{where}: unknown setting '{name}': {suggest(name, known)}")
        low = 1 if name in ("clients", "batch") else 0
        kinds = (int, float) if isinstance(known[name], float) else (int,)
        if not isinstance(value, kinds) or isinstance(value, bool) or value < low:
            raise UserError(f"{where}.{name}: expected a number of at least {low}, got {value!r}")
    return Rounds(**given)
