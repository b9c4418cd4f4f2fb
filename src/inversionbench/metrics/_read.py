"""Images from files for the command line: `.npy`, `.npz`, or a folder of pictures."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data import _archives

CHANNELS = (1, 3)
ARRAYS = _archives.Limits(members=64, member=1 << 36)
def read(path: str | Path, layout: str = "auto") -> tuple[np.ndarray, list[str] | None]:
    """Images as float (n, channels, height, width), and the names of the pictures if `path` is a folder.

    uint8 is divided by 255, floats are taken as they are. Arrays: (n, height, width) is grey; of four axes
    the one of length 1 or 3 is the channels, second (`nchw`) or last (`nhwc`); if both could be, `layout`
    must say. Raises `UserError` for anything else, and for files that need pickle.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise UserError(f"'{path}' not found: give a .npy or .npz file, or a folder of pictures")
    return _channels_first(_as_float(_array(path), path), path, layout), None


def _array(path: Path) -> np.ndarray:
    if path.suffix not in (".npy", ".npz"):
        raise UserError(f"'{path}': expected .npy, .npz or a folder of pictures")
    try:
        if zipfile.is_zipfile(path):
            _archives.names(path, ARRAYS)  # refuses what expands beyond reason
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if len(names) != 1 and "x" not in names:
                held = ", ".join(names) or "none"
                raise UserError(f"'{path}' must hold one array, or one named 'x'; it holds {held}")
            return loaded["x" if "x" in names else names[0]]
    except UserError:
        raise
    except Exception as error:  # numpy raises many kinds for damaged files, and for files that need pickle
        raise UserError(f"'{path}' is no readable array of plain numbers: {error}") from error


def _as_float(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255
    if array.dtype.kind != "f":
        raise UserError(f"'{path}' holds {array.dtype}: expected uint8 (0 to 255) or floats in [0, 1]")
    return array if array.dtype.itemsize >= 4 else array.astype(np.float32)


def _channels_first(array: np.ndarray, path: Path, layout: str) -> np.ndarray:
    if array.ndim == 3:
        if 3 in (array.shape[0], array.shape[2]):
            raise UserError(f"'{path}' has shape {array.shape}: is it one colour image, or several grey ones? Save "
                            "array[None] or array[:, None], which have four axes")  # fmt: skip
        return array[:, None]
    if array.ndim != 4 or 0 in array.shape:
        raise UserError(f"'{path}' has shape {array.shape}: expected (n, channels, height, width), all positive")
    first, last = array.shape[1] in CHANNELS, array.shape[3] in CHANNELS
    if layout == "auto":
        if first == last:
            problem = "the channels could be its second or its last axis" if first else "no axis has length 1 or 3"
            raise UserError(f"'{path}' has shape {array.shape}: {problem}; say --layout nchw or --layout nhwc")
        layout = "nchw" if first else "nhwc"
    return array if layout == "nchw" else array.transpose(0, 3, 1, 2)


def _natural(name: str) -> list[Any]:
    """A key that sorts 2.png before 10.png, as the rows of an array come.

    >>> sorted(["10.png", "2.png", "1.png"], key=_natural)
    ['1.png', '2.png', '10.png']
    """
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def _folder(path: Path) -> tuple[np.ndarray, list[str]]:
    from inversionbench.data._images import files, opened

    found = sorted(files(path), key=lambda p: _natural(p.relative_to(path).as_posix()))
    if not found:
        raise UserError(f"'{path}' holds no pictures (.png, .jpg, .pgm)")
    names = [p.relative_to(path).with_suffix("").as_posix() for p in found]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UserError(f"'{path}' holds two pictures named '{twice}' that differ only in their ending")
    pictures = [opened(p.read_bytes(), str(p)) for p in found]
    mode = "L" if all(p.mode in ("1", "L") for p in pictures) else "RGB"
    arrays = [np.asarray(p.convert(mode)) for p in pictures]
    for p, array in zip(found, arrays):
        if array.shape != arrays[0].shape:
            raise UserError(f"'{p}' is {array.shape[1]} x {array.shape[0]}, '{found[0]}' {arrays[0].shape[1]} x "
                            f"{arrays[0].shape[0]}: pictures of one folder must have one size")  # fmt: skip
    stack = np.stack(arrays).astype(np.float32) / 255
    return (stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2)), names


def read_pair(truth: str, reconstruction: str, layout: str, match: bool) -> tuple[np.ndarray, np.ndarray]:
    """Originals and reconstructions in the same order: by name for two folders, unless they are matched."""
    t, t_names = read(truth, layout)
    r, r_names = read(reconstruction, layout)
    if t_names is not None and r_names is not None and not match:
        missing = sorted(set(t_names) ^ set(r_names))
        if missing:
            where = reconstruction if missing[0] in t_names else truth
            raise UserError(
                f"'{missing[0]}' is missing in '{where}' ({len(missing)} names differ): name the pictures alike, or "
                "say --match to find the order"
            )
    if t.shape[1] != r.shape[1] and t_names is not None and r_names is not None:
        t, r = (x if x.shape[1] == 3 else x.repeat(3, axis=1) for x in (t, r))  # one folder grey, one in colour
    if t.shape != r.shape:
        raise UserError(f"'{truth}' holds images {t.shape}, '{reconstruction}' {r.shape}: expected the same")
    return t, r
