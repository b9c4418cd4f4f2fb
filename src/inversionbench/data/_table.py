"""Tables: what a column is, how it becomes numbers, and how later steps find it again.

`x` is float32 (n, width). A categorical column takes one place per value, 1 at the record's value and 0 at
the others; a numeric column takes one place and is standardised with mean and standard deviation of the
*public* rows, so that the encoding says nothing of the private ones. `extra` holds the code (int64, position
in `values`) of every categorical column, under the column's name.

`dataset.json` describes the columns in the order of their places:

    meta["columns"]    list of {name, kind, values, slice, sensitive, mean, std, low, high}
        kind           "categorical" or "numeric"
        values         names of the values by code; [] if numeric
        slice          [start, stop]: the places in x
        sensitive      whether attribute inference may ask for it
        mean, std      numeric: raw value = mean + std * x; null if categorical
        low, high      numeric: smallest and largest raw value among the public rows; null if categorical
    meta["sensitive"]  name of the column that attribute inference asks for unless told otherwise

Parts: private = members, heldout = non-members, public = the attacker's records, evaluation = further ones.
All are drawn from one distribution and carry the true class y.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data.base import PARTS

Rows = np.ndarray


@dataclass(frozen=True)
class Column:
    """A column before encoding: categorical if it has `values`, else numeric."""

    name: str
    values: tuple[str, ...] = ()
    sensitive: bool = False


def encode(
    raw: Mapping[str, np.ndarray], columns: Sequence[Column], public: Rows
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """(x, description). raw: name -> codes int64 (n,) or numbers (n,); public: rows that set the scale."""
    pieces, described, start = [], [], 0
    for column in columns:
        value = np.asarray(raw[column.name])
        about: dict[str, Any] = dict.fromkeys(("mean", "std", "low", "high"))
        if column.values:
            piece = np.eye(len(column.values), dtype=np.float32)[value]
        else:
            seen = value[public].astype(np.float64)
            about = {"mean": seen.mean(), "std": seen.std() or 1.0, "low": seen.min(), "high": seen.max()}
            piece = ((value - about["mean"]) / about["std"]).astype(np.float32)[:, None]
            about = {name: float(number) for name, number in about.items()}
        stop = start + piece.shape[1]
        kind = "categorical" if column.values else "numeric"
        described.append({"name": column.name, "kind": kind, "values": list(column.values),
                          "slice": [start, stop], "sensitive": column.sensitive, **about})  # fmt: skip
        pieces.append(piece)
        start = stop
    return np.concatenate(pieces, axis=1), described


def codes(x: np.ndarray, column: Mapping[str, Any]) -> np.ndarray:
    """The values of a categorical column in encoded records x (n, width): int64 (n,)."""
    return x[:, slice(*column["slice"])].argmax(1)


def with_code(x: np.ndarray, column: Mapping[str, Any], code: int | np.ndarray) -> np.ndarray:
    """A copy of x in which a categorical column has another value, the same for all or one per record."""
    out = np.array(x)
    start, stop = column["slice"]
    out[:, start:stop] = np.eye(stop - start, dtype=x.dtype)[np.broadcast_to(code, len(x))]
    return out


def quantiles(values: np.ndarray, count: int, reference: Rows) -> tuple[np.ndarray, list[float]]:
    """(codes int64 (n,) in 0..count-1, inner edges): bins that hold equally many of the reference rows."""
    edges = np.quantile(values[reference], np.arange(1, count) / count)
    return np.searchsorted(edges, values, side="right").astype(np.int64), edges.tolist()


def deal(where: str, n: int, sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, Rows]:
    """Rows of each part in random order; no row twice. Names the options if there are not enough rows."""
    wanted = sum(sizes.values())
    if wanted > n or min(sizes.values()) < 1:
        text = ", ".join(f"{part} {size}" for part, size in sizes.items())
        raise UserError(f"{where}: {text}: expected at least 1 row each and at most {n} together, got {wanted}")
    ends = np.cumsum(list(sizes.values()))
    return dict(zip(sizes, np.split(rng.permutation(n)[:wanted], ends[:-1])))


def write(
    out: Any,
    raw: Mapping[str, np.ndarray],
    columns: Sequence[Column],
    y: np.ndarray,
    parts: Mapping[str, Rows],
    class_names: Sequence[str],
    sensitive: str,
    **facts: Any,
) -> None:
    """Encode a table and write its four parts and its description into `out` (a `Writer`)."""
    choices = [c.name for c in columns if c.values]
    if sensitive not in choices:
        raise UserError(f"sensitive: no categorical column '{sensitive}'; there are {', '.join(choices)}")
    x, described = encode(raw, columns, parts["public"])
    for part in PARTS:
        rows = parts[part]
        extra = {name: raw[name][rows].astype(np.int64) for name in choices}
        out.put(part, x[rows], y[rows].astype(np.int64), **extra)
    out.meta(
        classes=len(class_names), class_names=list(class_names), columns=described, sensitive=sensitive, **facts
    )
