"""What every prepared data set must satisfy, and the digests that name it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data.base import PARTS, Card

CHUNK = 1 << 24  # bytes looked at in one piece: bounds the memory of every check
RESERVED = {
    "name", "title", "modality", "source", "terms", "citation", "key", "shape", "dtype", "digest", "split",
    "identical", "dropped_public", "options", "seed", "release", "files",
}  # fmt: skip

Arrays = Mapping[str, np.ndarray]


def tidy(x: np.ndarray) -> np.ndarray:
    """`x` as an array; a list of str becomes a unicode array."""
    x = np.asarray(x)
    return x.astype(np.str_) if x.dtype == object and all(isinstance(v, str) for v in x.flat) else x


def part(where: str, arrays: Arrays) -> None:
    """Types, lengths and finite values of one part, as `base.Part` documents; `UserError` names the array."""
    for name in ("x", "y"):
        if name not in arrays:
            raise UserError(f"{where}: array '{name}' was not written")
    x, y = arrays["x"], arrays["y"]
    fits = (
        (x.dtype == np.uint8 and x.ndim == 4)
        or (x.dtype == np.float32 and x.ndim == 2)
        or (x.dtype.kind == "U" and x.ndim == 1)
    )
    if not fits:
        raise UserError(
            f"{where}: x is {x.dtype}{x.shape}; expected uint8 (n, channels, height, width), "
            "float32 (n, columns) or str (n,)"
        )
    if y.dtype != np.int64 or y.ndim != 1:
        raise UserError(f"{where}: y is {y.dtype}{y.shape}; expected int64 (n,)")
    for name, value in arrays.items():
        if value.ndim == 0 or len(value) != len(x):
            raise UserError(f"{where}: '{name}' has shape {value.shape}; expected length {len(x)} as x has")
        if value.dtype.kind not in "biufU":
            raise UserError(f"{where}: '{name}' has dtype {value.dtype}; expected numbers, bool or str")
        if value.dtype.kind == "f" and not all(np.isfinite(v).all() for v in pieces(value)):
            raise UserError(f"{where}: '{name}' holds NaN or infinite values")


def whole(
    name: str, parts: Mapping[str, Arrays], classes: int, drop: bool
) -> tuple[dict[str, int], np.ndarray]:
    """What concerns several parts: one shape, labels in range, nothing shared by private and public.

    Returns the number of rows of public, evaluation and heldout that also are in private, and the rows of
    public to drop for that reason (only if `drop`; otherwise they are an error).
    """
    first = parts["private"]["x"]
    for key, arrays in parts.items():
        where, x, y = f"data set '{name}', part '{key}'", arrays["x"], arrays["y"]
        if x.shape[1:] != first.shape[1:] or x.dtype.kind != first.dtype.kind:
            raise UserError(f"{where}: x is {x.dtype}{x.shape}; private is {first.dtype}{first.shape}")
        low = -1 if key == "public" else 0
        if len(y) and (y.min() < low or y.max() >= classes):
            raise UserError(f"{where}: labels {y.min()}..{y.max()}; expected {low}..{classes - 1}")
    _identities(name, parts)
    rows = {key: hashes(arrays["x"]) for key, arrays in parts.items()}
    shared = {key: _same(rows["private"], rows[key], first, parts[key]["x"]) for key in PARTS[1:]}
    if len(shared["public"]) and not drop:
        raise UserError(
            f"data set '{name}': {len(shared['public'])} public samples are identical to private ones, the "
            f"first in row {shared['public'][0]} of public; an attacker must never hold the private data"
        )
    return {key: len(found) for key, found in shared.items()}, shared["public"] if drop else np.empty(0, int)


def _identities(name: str, parts: Mapping[str, Arrays]) -> None:
    """Where both parts say who a sample is of (extra array `identity`), nobody is in both."""
    if all("identity" in parts[key] for key in ("private", "public")):
        both = np.intersect1d(parts["private"]["identity"], parts["public"]["identity"])
        if len(both):
            raise UserError(
                f"data set '{name}': {len(both)} identities are both in private and in public "
                f"(the first: {both[0]}); they must be disjoint"
            )


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array in slices of about `CHUNK` bytes."""
    step = max(1, CHUNK // max(1, array.nbytes // max(1, len(array))))
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step])


def hashes(x: np.ndarray) -> np.ndarray:
    """One 64-bit hash per row, uint64 (n,): eight bytes a sample, whatever its size."""
    out = np.empty(len(x), np.uint64)
    row = 0
    for piece in pieces(x):
        for value in piece:
            data = str(value).encode() if piece.dtype.kind == "U" else value.tobytes()
            out[row] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            row += 1
    return out


def _same(private: np.ndarray, other: np.ndarray, px: np.ndarray, ox: np.ndarray) -> np.ndarray:
    """Rows of `ox` that equal a row of `px`; equal hashes are confirmed by comparing the samples."""
    rows = np.flatnonzero(np.isin(other, private))
    order = np.argsort(private, kind="stable")
    first = order[np.searchsorted(private, other[rows], sorter=order)]
    equal = [i for i, (row, match) in enumerate(zip(rows, first)) if np.array_equal(ox[row], px[match])]
    return rows[equal]


def digests(parts: Mapping[str, Arrays]) -> tuple[str, str]:
    """sha256 over all arrays, and sha256 of the split.

    The split is told by the extra array `index` (which sample of the source) where every part has one, else
    by the samples themselves.
    """
    everything, split = hashlib.sha256(), hashlib.sha256()
    indexed = all("index" in arrays for arrays in parts.values())
    for key, arrays in parts.items():
        for name, value in sorted(arrays.items()):
            everything.update(f"{key}/{name} {value.dtype.str} {value.shape}".encode())
            for piece in pieces(value):
                everything.update(piece.data.cast("B") if piece.dtype.kind != "U" else piece.tobytes())
        told = arrays["index"] if indexed else hashes(arrays["x"])
        split.update(f"{key} {told.dtype.str} {told.shape}".encode() + np.ascontiguousarray(told).tobytes())
    return everything.hexdigest(), split.hexdigest()


def about(card: Card) -> dict[str, Any]:
    """The essentials of a card for `dataset.json`."""
    return {
        "title": card.name, "modality": card.modality, "source": card.source, "terms": card.terms,
        "citation": card.citation,
    }  # fmt: skip
