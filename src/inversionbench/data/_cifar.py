"""The python release of CIFAR-10 and CIFAR-100: pickled batches in a tar.gz or in its unpacked folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data import _archives, _pickles, sources

LIMITS = _archives.Limits(members=32, member=1 << 28, total=1 << 29)


def batches(
    source: Any, root: Path, archive: str, folder: str, names: Sequence[str], labels: Sequence[str]
) -> list[np.ndarray]:
    """Images uint8 (n, 3, 32, 32), then labels int64 (n,) for each key of `labels`, of the named batches.

    archive: name of the tar.gz; folder: name of the folder in it, or of the unpacked one.
    """
    found = {}
    for name, data, where in _files(source, root, archive, folder, names):
        batch = _pickles.loads(data, where, _pickles.ARRAYS)
        if not isinstance(batch, dict) or not {"data", *labels} <= set(batch):
            raise UserError(f"{where}: not a batch with 'data', {', '.join(labels)}")
        x, ys = _pickles.array(batch["data"], where, "u"), [np.asarray(batch[k], np.int64) for k in labels]
        if x.dtype != np.uint8 or any(x.shape != (len(y), 3072) for y in ys):
            raise UserError(f"{where}: images {x.dtype}{x.shape} and {len(ys[0])} labels do not belong together")
        found[name] = [x.reshape(-1, 3, 32, 32), *ys]
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{source.card.name}: no batch {', '.join(missing)} in {archive}")
    return [np.concatenate(pieces) for pieces in zip(*(found[name] for name in names))]


def member(source: Any, root: Path, archive: str, folder: str, name: str) -> tuple[bytes, str]:
    """One file of the release, and its name for errors."""
    for _, data, where in _files(source, root, archive, folder, (name,)):
        return data, where
    raise UserError(f"{source.card.name}: no '{name}' in {archive}")


def _files(
    source: Any, root: Path, archive: str, folder: str, names: Sequence[str]
) -> Iterator[tuple[str, bytes, str]]:
    if sources.release_of(source, root) == "folder":
        for name in names:
            path = root / folder / name
            yield name, path.read_bytes(), str(path)
        return
    path = root / archive
    for member, read in _archives.members(path, LIMITS):
        if member.removeprefix(f"{folder}/") in names:
            yield member.removeprefix(f"{folder}/"), read(), f"{path}: {member}"
