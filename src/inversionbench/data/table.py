"""table: a table of your own, CSV or Parquet, with a class and a sensitive column. No code.

    datasets:
      patients: {source: table, path: patients.csv, response: outcome, sensitive: smoker, person: patient_id}

response: the column that the target predicts (a numeric one in quartiles of the public rows). sensitive: the column
that attribute inference asks for; it must have few values. person: a column that says whose row it is: all rows of one
person come into one part, and the column is no input. numeric: the columns that are numbers; without it, those whose
values all are numbers, more than 12 different ones. drop: columns left out. Missing values become a value of their own,
"unknown" (in a numeric column they are an error). Options of the split: public_share, evaluation_share, heldout_share,
and the largest number of rows of each part (0: all). `extra`: codes of the categorical columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.ranges import Share, Whole
from inversionbench.data import _own, _records
from inversionbench.data.base import Card, DatasetSource, File

FEW = 12  # a column with no more different numbers than this is categorical


@dataclass(frozen=True)
class Table(DatasetSource):
    """A table of one's own; options in the module docstring."""

    id = "table"
    task = "your response"
    card = Card(name="A table of your own", modality="table", source="a file of yours", terms="yours")

    path: str
    response: str
    sensitive: str
    person: str = ""
    numeric: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    public_share: Share = 0.3
    evaluation_share: Share = 0.1
    heldout_share: Share = 0.2
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def files(self) -> tuple[File, ...]:
        return _own.files(self.path)

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        path = _own.place(self.path)
        table = _read(path)
        for option, names in (("sensitive", [self.sensitive]), ("person", [self.person] if self.person else []),
                              ("numeric", self.numeric)):  # fmt: skip
            for name in names:
                if name not in table:
                    raise UserError(f"data.table.{option}: no column '{name}' in {path}: {suggest(name, table)}")
        other = (self.sensitive, self.person)
        numeric = self.numeric or [n for n, values in table.items() if n not in other and _numbers(values)]
        for name in numeric:
            if "unknown" in table[name]:
                raise UserError(f"{path}: column '{name}' has rows without a number; drop it, or fill them")
        sensitive = [n for n in table if n not in numeric]
        _records.build(self, out, rng, table, numeric, sensitive, self.person)


def _read(path: Path) -> dict[str, list[str]]:
    """Column -> values as text."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(
            path, dtype=str, sep=None, engine="python", encoding="utf-8-sig", skipinitialspace=True)  # fmt: skip
    except Exception as error:  # readers of tables fail in many ways
        raise UserError(f"{path}: no table that can be read: {str(error).splitlines()[0]}") from None
    if len(frame) < 10 or len(frame.columns) < 3:
        raise UserError(f"{path}: {len(frame)} rows and {len(frame.columns)} columns are no table to learn from")
    if frame.columns.duplicated().any():
        raise UserError(f"{path}: two columns are named '{frame.columns[frame.columns.duplicated()][0]}'")
    return {str(n): ["unknown" if pd.isna(v) or v == "" else str(v).strip() for v in frame[n]] for n in frame}


def _numbers(values: list[str]) -> bool:
    try:
        found = {float(v) for v in values}
    except ValueError:
        return False
    return len(found) > FEW and all(np.isfinite(v) for v in found)
