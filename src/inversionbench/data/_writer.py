"""The folder of a prepared data set while it is written: streaming, resuming, checking, naming.

Work happens in `.<name>.<key>.part` beside the target folder, where `key` names data set, options, seed,
input files and code. A run that is cut off leaves that folder; the next run with the same key finds the rows
already decoded marked in `.done` and does the others. `dataset.json` is written last, then the folder gets
its name.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.lib.format import open_memmap

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.files import write_json
from inversionbench.data import _checks
from inversionbench.data.base import PARTS, Card

FLUSH = 256  # rows between two marks of what is done
Job = tuple[str, int, Callable[[], np.ndarray]]  # part, row, decode


class Writer:
    """Receives the four parts of a data set from `DatasetSource.build`.

    Whole arrays: `put`. Streaming: `array` for each array, then `fill` for the ones that are decoded.
    `meta(classes=...)` once. `__enter__` takes (or takes up) the work folder; leaving without `finish`
    removes it, unless it was cut off with rows of a stream done or checksums remembered.
    """

    def __init__(self, out: Path, name: str, key: str = "", progress: bool = False) -> None:
        self.out = Path(os.path.abspath(out))
        self.name, self.key, self.progress = name, key, progress
        self.work = self.out.with_name(f".{self.out.name}.{key or os.getpid()}.part")
        self._meta: dict[str, Any] = {}
        self._streams = False
        self._drop_shared = False
        self._lock: IO[str] | None = None

    def __enter__(self) -> Writer:
        _replaceable(self.out)
        self.work.mkdir(parents=True, exist_ok=True)
        self._lock = (self.work / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(f"{self.out}: another process prepares this data set now; wait for it") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        work = self._streams or (self.work / ".state.json").exists()
        if not work or kind is None or issubclass(kind, UserError):
            shutil.rmtree(self.work, ignore_errors=True)
        if self._lock:
            self._lock.close()

    def put(self, part: str, x: np.ndarray, y: np.ndarray, **extra: np.ndarray) -> None:
        """Write one part whole. x, y, extra: as `base.Part` says, all of one length."""
        arrays = {"x": _checks.tidy(x), "y": np.asarray(y), **{k: np.asarray(v) for k, v in extra.items()}}
        _checks.part(self._where(part), arrays)
        folder = self._folder(part)
        for name, value in arrays.items():
            np.save(folder / f"{name}.npy", np.ascontiguousarray(value), allow_pickle=False)

    def array(self, part: str, name: str, shape: tuple[int, ...], dtype: Any) -> np.memmap:
        """An array on disk to write in place: shape (n, ...). Taken up again if a cut-off run left it."""
        path = self._folder(part) / f"{name}.npy"
        self._streams = True
        if path.exists():
            old = np.load(path, mmap_mode="r+", allow_pickle=False)
            if old.shape == tuple(shape) and old.dtype == np.dtype(dtype):
                return old
        self._done_path(part, name).unlink(missing_ok=True)
        return open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=tuple(shape))

    def side(self, part: str, **arrays: np.ndarray) -> None:
        """Write small arrays of a part (y, index, identity, ...) whose x is streamed."""
        for name, value in arrays.items():
            np.save(self._folder(part) / f"{name}.npy", np.ascontiguousarray(value), allow_pickle=False)

    def fill(self, arrays: Mapping[str, np.ndarray], jobs: Iterable[Job], name: str = "x") -> None:
        """Write rows of arrays made by `array()`; rows done before a cut are not decoded again.

        arrays: part -> array. jobs: (part, row, decode) in any order, that of the archive for example. A row
        that no job writes is a `UserError`.
        """
        done = {part: self._done(part, name, len(array)) for part, array in arrays.items()}
        fresh: list[tuple[str, int]] = []
        count = sum(len(d) for d in done.values())
        for part, row, decode in self.bar(jobs, count, self.name):
            if done[part][row]:
                continue
            arrays[part][row] = decode()
            fresh.append((part, row))
            if len(fresh) >= FLUSH:
                _mark(arrays, done, fresh)
        _mark(arrays, done, fresh)
        missing = sum(int((~d).sum()) for d in done.values())
        if missing:
            raise UserError(f"data set '{self.name}': {missing} of {count} samples were not found in the files")

    def meta(self, classes: int, **values: Any) -> None:
        """Facts for `dataset.json`: number of classes of the task, and any JSON values."""
        json.dumps(values, allow_nan=False)
        taken = set(values) & _checks.RESERVED
        if taken:
            raise ValueError(f"meta: {', '.join(sorted(taken))} is written by prepare itself")
        self._meta |= {"classes": int(classes), **values}

    def note(self, **values: Any) -> None:
        """A further fact for `dataset.json`."""
        self._meta |= values

    def drop_shared(self) -> None:
        """Drop public samples identical to private ones (count kept in `dataset.json`) instead of an error.

        For sets whose source is known to hold exact copies.
        """
        self._drop_shared = True

    def remember(self, name: str, value: Any = None) -> Any:
        """Small JSON state that survives a cut-off run: with a value, set it; without, read it (or None)."""
        path = self.work / ".state.json"
        state = json.loads(path.read_text()) if path.exists() else {}
        if value is None:
            return state.get(name)
        write_json(path, {**state, name: value})
        return value

    def bar(self, items: Iterable[Any], total: int, label: str) -> Iterator[Any]:
        """`items`, with a progress bar on stderr if one is wanted."""
        if not self.progress:
            return iter(items)
        from tqdm import tqdm

        return iter(tqdm(items, total=total, desc=label, unit="sample", leave=False))

    def finish(self, card: Card, **values: Any) -> None:
        """Check the whole, add digests and card to `dataset.json`, and give the folder its name."""
        if "classes" not in self._meta:
            raise ValueError(f"{self.name}: build() did not call out.meta(classes=...)")
        parts = {part: self._open(part) for part in PARTS}
        counts, dropped = _checks.whole(self.name, parts, self._meta["classes"], self._drop_shared)
        if len(dropped):
            self._without(parts["public"], dropped)
            parts["public"] = self._open("public")
        digest, split = _checks.digests(parts)
        write_json(
            self.work / "dataset.json",
            {
                **self._meta, **values, **_checks.about(card),
                "name": self.name, "key": self.key, "shape": list(parts["private"]["x"].shape[1:]),
                "dtype": parts["private"]["x"].dtype.str, "digest": digest, "identical": counts,
                "dropped_public": len(dropped),
                "split": {"digest": split, "counts": {p: len(a["y"]) for p, a in parts.items()}},
            },
        )  # fmt: skip
        parts.clear()
        self._publish()

    def _publish(self) -> None:
        """Flush to disk, drop the working state, then swap folders by renaming."""
        for hidden in (".done", ".state.json", ".lock"):
            path = self.work / hidden
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for path in self.work.rglob("*"):
            if path.is_file():
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())
        old = self.work.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.out.exists():
            os.replace(self.out, old)
        os.replace(self.work, self.out)
        shutil.rmtree(old, ignore_errors=True)
        for stale in self.out.parent.glob(f".{self.out.name}.*.part"):  # of runs with other options
            if stale.is_dir() and not _busy(stale):
                shutil.rmtree(stale, ignore_errors=True)

    def _open(self, part: str) -> dict[str, np.ndarray]:
        paths = sorted((self.work / part).glob("*.npy"))
        arrays = {p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in paths}
        _checks.part(self._where(part), arrays)
        return arrays

    def _without(self, arrays: dict[str, np.ndarray], rows: np.ndarray) -> None:
        """Rewrite the arrays of a part without some rows, piece by piece."""
        for old in arrays.values():
            keep = np.setdiff1d(np.arange(len(old)), rows)
            path = Path(old.filename)  # type: ignore[attr-defined]
            short = path.with_suffix(".short")
            new = open_memmap(short, mode="w+", dtype=old.dtype, shape=(len(keep), *old.shape[1:]))
            for start in range(0, len(keep), FLUSH):
                new[start : start + FLUSH] = old[keep[start : start + FLUSH]]
            new.flush()
            os.replace(short, path)

    def _done_path(self, part: str, name: str) -> Path:
        return self.work / ".done" / f"{part}.{name}.npy"

    def _done(self, part: str, name: str, count: int) -> np.memmap:
        path = self._done_path(part, name)
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            return np.load(path, mmap_mode="r+", allow_pickle=False)
        return open_memmap(path, mode="w+", dtype=np.bool_, shape=(count,))

    def _folder(self, part: str) -> Path:
        if part not in PARTS:
            raise ValueError(f"{self.name}: unknown part '{part}': {suggest(part, PARTS)}")
        folder = self.work / part
        folder.mkdir(exist_ok=True)
        return folder

    def _where(self, part: str) -> str:
        return f"data set '{self.name}', part '{part}'"


def _replaceable(out: Path) -> None:
    """Refuse to put a data set in the place of anything but a data set."""
    own = {*PARTS, "dataset.json"}
    held = sorted(p.name for p in out.iterdir()) if out.is_dir() else ["a file"] if out.exists() else []
    others = [name for name in held if name not in own and not name.startswith(".snakemake")]
    if others:
        raise UserError(f"{out}: holds something else ({others[0]}); name a new or an empty folder")


def _busy(folder: Path) -> bool:
    """Whether a running process holds the lock of a work folder."""
    try:
        with (folder / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _mark(
    arrays: Mapping[str, np.ndarray], done: Mapping[str, np.memmap], fresh: list[tuple[str, int]]
) -> None:
    """Rows first, then the marks, so that a mark never stands for a row that is not on disk."""
    for part in {part for part, _ in fresh}:
        array = arrays[part]
        if isinstance(array, np.memmap):
            array.flush()
        done[part][[row for p, row in fresh if p == part]] = True
        done[part].flush()
    fresh.clear()
