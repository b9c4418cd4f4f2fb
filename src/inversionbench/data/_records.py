"""Published tables of people: rows of text to a split table. Encoding and column description: `_table`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError, suggest
from inversionbench.data import _classed, _split, _table
from inversionbench.data.base import PARTS

BINS = 4  # of a numeric response


def build(
    source: Any,
    out: Any,
    rng: np.random.Generator,
    table: Mapping[str, Sequence[str]],
    numeric: Sequence[str],
    sensitive: Sequence[str],
    person: str = "",
) -> None:
    """Split, encode and write a table. person: a column that says whose record it is, which is no input.

    table: column -> values as text. numeric: the columns that are numbers. sensitive: the columns that
    attribute inference may ask for. Options of the source: response (the column that is the class; a numeric
    one in quartiles of the public rows), sensitive, drop (columns left out), the shares and the limits.

    Records that are equal in every column are kept once; records with equal inputs, or of one person, stay in one
    part. A response that is no number has the same shares of its classes in every part.
    """
    names = _chosen(source, table)
    codes = {name: _codes(values) for name, values in table.items()}
    kept = _first(np.stack([code for code, _ in codes.values()], axis=1))
    inputs = [name for name in names if name not in (source.response, person)]
    alike = [person] if person else inputs
    same = np.unique(np.stack([codes[n][0][kept] for n in alike], axis=1), axis=0, return_inverse=True)[1]
    shares = {part: getattr(source, f"{part}_share") for part in PARTS[1:]}
    strata = None if source.response in numeric else codes[source.response][0][kept]
    blocks = _split.blocks(same.reshape(-1), rng, shares, strata)
    parts = _classed.limited(source, {part: rng.permutation(blocks[part]) for part in PARTS})
    raw = {n: _numbers(table[n], n)[kept] if n in numeric else codes[n][0][kept] for n in (*inputs, source.response)}
    y, classes = _response(source.response, raw, codes, numeric, parts["public"])
    columns = [
        _table.Column(n, () if n in numeric else tuple(codes[n][1]), n in sensitive) for n in inputs
    ]
    repeated = len(next(iter(table.values()))) - len(kept)
    _table.write(
        out, raw, columns, y, parts, classes, source.sensitive, response=source.response, repeated=repeated
    )


def _chosen(source: Any, table: Mapping[str, Any]) -> list[str]:
    """The columns in use: all but `drop`; names that do not exist are refused."""
    where = f"data.{source.id}"
    for option, name in [("response", source.response), *(("drop", n) for n in source.drop)]:
        if name not in table:
            raise UserError(f"{where}.{option}: no column '{name}': {suggest(name, table)}")
    if source.sensitive == source.response or {source.sensitive, source.response} & set(source.drop):
        raise UserError(f"{where}: response, sensitive and drop must name different columns")
    return [name for name in table if name not in source.drop]


def _codes(values: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """(position of each value among the sorted distinct values, these values)."""
    distinct, code = np.unique(np.asarray(values, np.str_), return_inverse=True)
    return code.astype(np.int64), [str(v) for v in distinct]


def _first(rows: np.ndarray) -> np.ndarray:
    """Numbers of the first of each set of equal rows, in their order."""
    return np.sort(np.unique(rows, axis=0, return_index=True)[1])


def _numbers(values: Sequence[str], name: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except ValueError as error:
        raise UserError(f"column '{name}': expected numbers ({error}); get the file again") from error


def _response(
    name: str, raw: dict[str, np.ndarray], codes: Mapping[str, Any], numeric: Sequence[str], public: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """The class of each record, and the names of the classes."""
    if name not in numeric:
        return raw[name], codes[name][1]
    y, edges = _table.quantiles(raw[name], BINS, public)
    marks = ["", *(f"{edge:g}" for edge in edges), ""]
    return y, [f"{name} {low}..{high}" for low, high in pairwise(marks)]
