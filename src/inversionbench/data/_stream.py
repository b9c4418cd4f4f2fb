"""Pictures from archives and folders into the parts of a data set, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data import _archives, _images
from inversionbench.data.base import PARTS

if TYPE_CHECKING:
    from inversionbench.data._writer import Job, Writer

T = TypeVar("T")
Items = Iterable[tuple[int, Callable[[], bytes], str]]  # number of the sample, read, name for errors
Decode = Callable[[bytes, str], np.ndarray]


def write(
    out: Writer,
    parts: Mapping[str, np.ndarray],
    items: Items,
    decode: Decode,
    shape: tuple[int, ...],
    sides: Mapping[str, np.ndarray],
    dtype: type = np.uint8,
    label: Callable[[int], str] = "number {}".format,
) -> None:
    """Decode the samples of all parts in one pass over `items`.

    parts: part -> numbers of its samples in the source, in the order they get. sides: name -> array over
    *all* samples of the source (y, identity, ...); `index`, the number in the source, is added. label: what a sample is
    called in errors, from its number.
    """
    arrays: dict[str, np.ndarray] = {}
    place: dict[int, tuple[str, int]] = {}
    for part in PARTS:
        rows = np.asarray(parts[part], np.int64)
        arrays[part] = out.array(part, "x", (len(rows), *shape), dtype)
        out.side(part, index=rows, **{name: value[rows] for name, value in sides.items()})
        place |= {int(row): (part, i) for i, row in enumerate(rows)}

    def jobs() -> Iterator[Job]:
        left = set(place)
        for row, read, name in items:
            if row in place:
                left.discard(row)
                yield (*place[row], partial(_decode, decode, read, name))
        if left:
            first = label(min(left))
            raise UserError(f"{len(left)} of {len(place)} samples are not in the files, first {first}; get them again")

    out.fill(arrays, jobs())


def _decode(decode: Decode, read: Callable[[], bytes], name: str) -> np.ndarray:
    return decode(read(), name)


def names(path: Path) -> list[str]:
    """Names of the picture files of an archive or a folder, sorted."""
    if path.is_dir():
        return [p.relative_to(path).as_posix() for p in _images.files(path)]
    return sorted(n for n in _archives.names(path) if n.lower().endswith((".jpg", ".jpeg", ".png", ".pgm")))


def kept(rows: list[T], name: Callable[[T], str], places: Iterable[Path], partial: bool, out: Writer) -> list[T]:
    """The rows of a table of pictures; with `partial` only those whose picture is there, and a note of how many.

    name: the picture's file name with or without its ending; places: the archives or folders that hold the pictures.
    """
    if not partial:
        return rows
    there = {n.rsplit("/", 1)[-1] for place in places for n in names(place)}
    there |= {n.rsplit(".", 1)[0] for n in there}
    found = [row for row in rows if name(row) in there]
    out.note(partial=f"{len(found)} of the {len(rows)} pictures of the table are there")
    return found


def items(path: Path, number: Mapping[str, int]) -> Iterator[tuple[int, Callable[[], bytes], str]]:
    """The files of an archive or folder that have a number: name in it -> number of the sample."""
    if path.is_dir():
        gone = [name for name in number if not (path / name).is_file()]
        if gone:
            raise UserError(f"{path}: {len(gone)} of {len(number)} files are missing, first {gone[0]}; get them again")
        for name, row in number.items():
            yield row, (path / name).read_bytes, str(path / name)
    else:
        for name, read in _archives.members(path):
            if name in number:
                yield number[name], read, f"{path}: {name}"


def size(name: str, resolution: int) -> None:
    """Refuse resolutions that no data set here can mean."""
    if not 8 <= resolution <= 1024:
        raise UserError(f"data.{name}.resolution: expected 8..1024 pixels, got {resolution}")
