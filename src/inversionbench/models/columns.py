"""What the columns of an encoded table mean, and the question of attribute inference: which column is
sensitive, what values it can take, how a value is put into a record.

A table's x is float32 (n, width): a categorical column of V values is V adjacent zeros and ones, a numeric
one is a single standardised number. `meta["columns"]` of a data set lists them: {name, kind, values, slice,
sensitive}. A sensitive measurement is asked for in bins, which the data set makes: a categorical column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError, suggest


@dataclass(frozen=True)
class Question:
    """The attribute to infer: column `name`, which takes `values` and lies in x[:, start:stop], of `width`
    columns in all. Its encoded columns are taken out, put in and permuted together.
    """

    name: str
    values: tuple[str, ...]
    start: int
    stop: int
    width: int

    def known(self, x: np.ndarray) -> np.ndarray:
        """Records without the sensitive column: (n, width) -> (n, width - V)."""
        return np.delete(x, np.s_[self.start : self.stop], axis=1)

    def truth(self, x: np.ndarray) -> np.ndarray:
        """The value of the sensitive column of whole records, int64 (n,) in 0..V-1."""
        return x[:, self.start : self.stop].argmax(1).astype(np.int64)

    def complete(self, known: np.ndarray) -> np.ndarray:
        """Every record with every value: (n, width - V) -> float32 (n * V, width), values fastest.

        >>> Question("gene", ("no", "yes"), 1, 3, 4).complete(np.array([[5.0, 7.0]])).tolist()
        [[5.0, 1.0, 0.0, 7.0], [5.0, 0.0, 1.0, 7.0]]
        """
        rows = np.repeat(known, len(self.values), axis=0)
        filled = np.tile(np.eye(len(self.values)), (len(known), 1))
        return np.concatenate([rows[:, : self.start], filled, rows[:, self.start :]], axis=1).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """Plain values, for `torch.save`; `Question(**state)` is the opposite."""
        return {"name": self.name, "values": self.values, "start": self.start, "stop": self.stop, "width": self.width}


def ask(meta: Mapping[str, Any], name: str | None = None) -> Question:
    """The question for one data set. name: the sensitive column (None: the one that the data set names)."""
    if "columns" not in meta:
        raise UserError(f"data set '{meta.get('name')}' is no table: its description lists no columns")
    choices = {c["name"]: c for c in meta["columns"] if c["kind"] == "categorical"}
    chosen = name or str(meta["sensitive"])
    if chosen not in choices:
        raise UserError(f"protocol.sensitive: no categorical column '{chosen}': {suggest(chosen, choices)}")
    start, stop = choices[chosen]["slice"]
    width = max(c["slice"][1] for c in meta["columns"])
    return Question(chosen, tuple(choices[chosen]["values"]), start, stop, width)


def one_hot_slices(meta: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Where the categorical columns of a data set lie."""
    return [(c["slice"][0], c["slice"][1]) for c in meta["columns"] if c["kind"] == "categorical"]
