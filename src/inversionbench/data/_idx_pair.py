"""MNIST and Fashion-MNIST: four idx files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data import _classed, _formats, _images, sources
from inversionbench.data.base import File

if TYPE_CHECKING:
    from inversionbench.data._writer import Writer

FILES = (
    "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
)  # fmt: skip


def files(mirror: str, md5: Sequence[str], content: Sequence[str]) -> tuple[File, ...]:
    """The card's entries: md5 of the published .gz and sha256 of what it holds, in the order of `FILES`. Mirrors
    compress again, so only the content is checked."""
    sums = zip(FILES, md5, content, strict=True)
    return tuple(File(name, md5=m, content_sha256=c, url=mirror + name) for name, m, c in sums)


def build(source: Any, root: Path, out: Writer, rng: np.random.Generator, names: Sequence[str]) -> None:
    """Read the four files, split, and write images (n, 1, resolution, resolution)."""
    train_x, train_y, test_x, test_y = (_formats.idx(sources.path_of(source, root, f)) for f in FILES)
    for x, y in ((train_x, train_y), (test_x, test_y)):
        if x.ndim != 3 or y.shape != x.shape[:1] or x.shape[1] != x.shape[2] or y.max(initial=0) >= len(names):
            raise UserError(f"{source.card.name}: images {x.shape} and labels {y.shape} do not belong together")
    images = np.concatenate([train_x, test_x])[:, None]
    private = _classed.private_classes(source, len(names))
    plan = _classed.plan(source, train_y, test_y, names, private, rng)
    _classed.write(out, plan, lambda rows: _images.fit(images[rows], source.resolution))
