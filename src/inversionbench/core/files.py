"""Writing so that a crash, a kill or a full disk never leaves a half-written file that looks whole."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inversionbench.core.errors import Unreadable, UserError

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


def write_tensors(path: str | Path, value: Any) -> None:
    """What `torch.load(path, weights_only=True)` reads. By way of memory: a file's name would become part of its bytes,
    and PyTorch says of a full disk that a position was unexpected."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    with atomic(path) as part:
        part.write_bytes(buffer.getvalue())


def read_json(path: str | Path, delete: Path | None = None) -> Any:
    with whole(path, delete):
        return json.loads(Path(path).read_text(), parse_constant=_no_number)


def _no_number(name: str) -> Any:
    raise ValueError(f"it holds {name}")


@contextmanager
def whole(path: str | Path, delete: Path | None = None) -> Iterator[None]:
    """Read a file in this block; `Unreadable` where it is damaged, with what to `delete` so that it is made again."""
    try:
        yield
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:  # a damaged file raises nearly anything
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        advice = f". Delete {delete} and run the same command again" if delete else ""
        raise Unreadable(f"{path} is damaged ({said}){advice}") from error
