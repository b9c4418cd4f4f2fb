"""arrays: images of your own in one .npz file, with their classes. No code.

    datasets:
      scans: {source: arrays, path: scans.npz, split: sample}

The file holds `x`, uint8 (n, channels, height, width) or (n, height, width, channels) with 1 or 3 channels, or
(n, height, width), square; and `y`, whole numbers (n,), whose distinct values are the classes. Options of the split:
see `data._own`. `extra`: `index`, and `identity` where classes are split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _own
from inversionbench.data.base import PARTS, Card, DatasetSource, File


@dataclass(frozen=True)
class Arrays(DatasetSource):
    """Images of one's own in a file of arrays; options in the module docstring."""

    id = "arrays"
    task = "your classes"
    card = Card(
        name="Images of your own",
        modality="image",
        source="a file of yours",
        terms="yours: results hold galleries of these images",
    )

    path: str
    split: Literal["class", "sample"] = "class"
    private_classes: Whole = 0
    least: Count = 5
    public_share: Share = 0.3
    evaluation_share: Share = 0.3
    heldout_share: Share = 0.2
    public: Whole = 0

    def files(self) -> tuple[File, ...]:
        return _own.files(self.path)

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        x, y = _read(_own.place(self.path))
        label = np.unique(y, return_inverse=True)[1].astype(np.int64)
        parts, sides, private = _own.plan(self, label, rng)
        out.drop_shared()
        for part in PARTS:
            rows = parts[part]
            own = {name: value[rows] for name, value in sides.items()}
            out.put(part, x[rows], own.pop("y"), index=rows.astype(np.int64), **own)
        out.meta(classes=len(private))


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(x uint8 (n, channels, side, side), y (n,)), checked."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files if name in ("x", "y")}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: no .npz file of plain arrays ({error})") from None
    if missing := [name for name in ("x", "y") if name not in arrays]:
        raise UserError(f"{path}: holds no array '{missing[0]}'")
    x, y = arrays["x"], arrays["y"]
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3) or x.shape[2] != x.shape[3]:
        given = arrays["x"]
        raise UserError(f"{path}: x is {given.dtype} {given.shape}, expected uint8 square images, 1 or 3 channels")
    if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
        raise UserError(f"{path}: y is {y.dtype} {y.shape}, expected whole numbers ({len(x)},)")
    return np.ascontiguousarray(x), y
