"""Writing so that a crash, a kill or a full disk never leaves a half-written file that looks whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inversionbench.core.errors import UserError

# a disk or a folder that takes nothing: for a person to mend, not an error of ours
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def refused(error: OSError, path: Any = None) -> UserError | None:
    """What a person can do where a disk or a folder takes nothing; None for other errors of the system."""
    if error.errno not in UNWRITABLE:
        return None
    right = error.errno in (errno.EACCES, errno.EPERM) and path is None  # perhaps it was to be read
    return UserError(f"cannot {'open or ' * right}write {path or error.filename or 'a file'}: "
                     f"{os.strerror(error.errno)}. Nothing there is half written: make room or give the right to it, "
                     "and the same command continues")  # fmt: skip


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Say in one line where nothing can be written."""
    try:
        yield
    except OSError as error:
        if said := refused(error, path):
            raise said from error
        raise


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on error removed. `UserError` where the
    disk is full or nothing may be written."""
    path = Path(path)
    with _written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        part = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
        try:
            yield part
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """The same for a folder: filled under a temporary name, then put in the place of `path`."""
    with _written(Path(path)), _folder(Path(path)) as part:
        yield part


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    _sweep(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(part, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def visible(root: Path, pattern: str) -> list[Path]:
    """Files below `root` that match, sorted, without those in what a kill left half done (hidden names)."""
    return sorted(p for p in root.rglob(pattern) if not any(n.startswith(".") for n in p.relative_to(root).parts))


def _sweep(path: Path) -> None:
    """Remove what killed processes of this machine left of `path`."""
    for left in path.parent.glob(f".{path.name}.*"):
        pid, _, rest = left.name.removeprefix(f".{path.name}.").partition(".")
        if rest in ("part", "old", f"part{path.suffix}") and pid.isdecimal() and not _runs(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, for another user
    return True


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as part:
        part.write_text(text)


def write_json(path: str | Path, value: Any) -> None:
    """JSON with sorted keys and without NaN: equal values give equal bytes, and every reader accepts them."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text())
