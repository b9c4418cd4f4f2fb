"""Reading archives that may be hostile: members are checked before they are read, and read into memory only.

Nothing is ever unpacked to disk, so nothing can be written outside a folder. Refused with a `UserError`:
absolute names, `..`, backslashes and drive letters, links, devices, encrypted members, two members of one
name, too many members, members or totals larger than the limits, contents that expand more than `RATIO`
times, and whatever is cut off or damaged. Side files of desktop systems (`__MACOSX`, ...) are skipped.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from inversionbench.core.errors import UserError
from inversionbench.data._tree import JUNK

RATIO = 250  # unpacked size / packed size; tables reach 20, deflate can be driven to 1030
SMALL = 1 << 24  # below this many unpacked bytes the ratio is not looked at: it can do no harm
DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError,
    OverflowError,
)  # fmt: skip

Read = Callable[[], bytes]


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold: number of members, bytes of one and of all unpacked."""

    members: int = 400_000
    member: int = 1 << 28
    total: int = 1 << 38


LIMITS = Limits()


def members(path: Path, limits: Limits = LIMITS) -> Iterator[tuple[str, Read]]:
    """The regular files of a zip, tar or tar.gz, in the order of the archive: (name, read).

    `read()` gives the bytes and is valid until the next member is asked for.
    """
    with _damage(path):
        yield from _zip(path, limits) if zipfile.is_zipfile(path) else _tar(path, limits)


def names(path: Path, limits: Limits = LIMITS) -> list[str]:
    """Names of the regular files, in the order of the archive."""
    return [name for name, _ in members(path, limits)]


def member(path: Path, name: str, limits: Limits = LIMITS, sha256: str | None = None) -> bytes:
    """One file of an archive, with its checksum where one is known."""
    for found, read in members(path, limits):
        if found == name:
            data = read()
            if sha256 and (got := hashlib.sha256(data).hexdigest()) != sha256:
                raise UserError(f"{path}: member '{name}' has sha256 {got}, expected {sha256}; get it again")
            return data
    raise UserError(f"{path}: no member '{name}'; it is another archive than the card names")


def nested(path: Path, limits: Limits = LIMITS) -> Iterator[tuple[str, Read]]:
    """Files of the tars in an uncompressed tar, read in place: (name of the tar without .tar/name, read)."""
    outside = replace(limits, member=limits.total)
    with _damage(path), tarfile.open(path, "r:", tarinfo=_Info) as outer:
        for info in _checked(outer, path, outside):
            handle = cast("IO[bytes]", outer.extractfile(info))
            with tarfile.open(fileobj=handle, mode="r:", tarinfo=_Info) as inner:
                for name, read in _tar_members(inner, path / info.name, limits):
                    yield f"{info.name.removesuffix('.tar')}/{name}", read


def gunzip(path: Path, limit: int) -> bytes:
    """The content of a .gz (or of a plain file), at most `limit` bytes."""
    with _damage(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
        data = handle.read(limit + 1)
        if len(data) > limit:
            raise UserError(f"{path} holds more than {limit} bytes, which is more than this format can need")
        return data


def _zip(path: Path, limits: Limits) -> Iterator[tuple[str, Read]]:
    with zipfile.ZipFile(path) as archive:
        guard = _Guard(path, limits)
        found = []
        for info in archive.infolist():
            if info.is_dir() or JUNK.search(info.filename):
                guard.name(info.filename)
                continue
            if info.flag_bits & 1:
                raise UserError(f"{path}: member '{info.filename}' is encrypted")
            mode = info.external_attr >> 16
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise UserError(f"{path}: member '{info.filename}' is a link or a device; not read")
            guard.add(info.filename, info.file_size)
            guard.ratio(info.file_size, info.compress_size, info.filename)
            guard.ratio(guard.total, path.stat().st_size, info.filename)  # members that share their bytes
            found.append(info)
        for info in found:

            def read(info: zipfile.ZipInfo = info) -> bytes:
                with _damage(path):
                    return archive.read(info)  # never more than the declared size; checks the CRC

            yield info.filename, read


def _tar(path: Path, limits: Limits) -> Iterator[tuple[str, Read]]:
    with path.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        handle = cast("IO[bytes]", _Capped(path, plain, limits) if packed else plain)
        with tarfile.open(fileobj=handle, mode="r:", tarinfo=_Info) as tar:
            yield from _tar_members(tar, path, limits)
        while packed and handle.read(1 << 20):  # to the end, where gzip keeps its checksum
            pass


def _checked(tar: tarfile.TarFile, path: Path, limits: Limits) -> Iterator[tarfile.TarInfo]:
    """The regular files of an open tar, each checked before it is handed on."""
    guard = _Guard(path, limits)
    for info in tar:
        if info.isdir() or JUNK.search(info.name):
            guard.name(info.name)
            continue
        if not info.isreg() or info.issparse():
            raise UserError(f"{path}: member '{info.name}' is a link or a device; not read")
        guard.add(info.name.removeprefix("./"), info.size)
        yield info


def _tar_members(tar: tarfile.TarFile, path: Path, limits: Limits) -> Iterator[tuple[str, Read]]:
    for info in _checked(tar, path, limits):

        def read(info: tarfile.TarInfo = info) -> bytes:
            with _damage(path):
                handle = tar.extractfile(info)
                data = handle.read() if handle else b""
                if len(data) != info.size:
                    raise EOFError(f"'{info.name}' ends early")
                return data

        yield info.name.removeprefix("./"), read


class _Info(tarfile.TarInfo):
    """A header reader for which only the end mark is the end; tarfile also stops at a cut or at garbage."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Info:
        ends = (tarfile.TruncatedHeaderError, tarfile.EmptyHeaderError, tarfile.InvalidHeaderError)  # type: ignore
        try:
            return super().fromtarfile(tar)
        except ends as error:
            raise tarfile.ReadError(f"no end mark: {error}") from error


class _Capped:
    """A gzip stream that stops when it gives out much more than went in, headers included."""

    def __init__(self, path: Path, handle: IO[bytes], limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.most = max(SMALL, RATIO * path.stat().st_size)
        self.inner = gzip.GzipFile(fileobj=handle)

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.limits.member:
            most = self.limits.member
            raise UserError(f"{self.path}: a header or member of {size} bytes; at most {most} expected")
        data = self.inner.read(size)
        if self.inner.tell() > self.most:
            raise UserError(f"{self.path}: expands more than {RATIO} times; not read")
        return data

    def seek(self, position: int) -> int:
        while self.tell() < position and self.read(min(1 << 20, position - self.tell())):
            pass
        return self.inner.seek(position)

    def tell(self) -> int:
        return self.inner.tell()


class _Guard:
    """Counts what an archive declares, and refuses when it is too much or badly named."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.seen: set[str] = set()
        self.total = self.count = 0

    def name(self, name: str) -> None:
        self.count += 1
        if self.count > self.limits.members:
            raise UserError(f"{self.path}: more than {self.limits.members} members; not read")
        bad = name.startswith("/") or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name)
        if bad or ".." in name.split("/"):
            raise UserError(f"{self.path}: member '{name}' points outside the archive's own folder; not read")

    def add(self, name: str, size: int) -> None:
        self.name(name)
        if name in self.seen:
            raise UserError(f"{self.path}: two members are named '{name}'; not read")
        self.seen.add(name)
        self.total += size
        if size < 0 or size > self.limits.member:
            most = self.limits.member
            raise UserError(f"{self.path}: member '{name}' has {size} bytes; at most {most} expected")
        if self.total > self.limits.total:
            raise UserError(f"{self.path}: unpacks to more than {self.limits.total} bytes; not read")

    def ratio(self, size: int, packed: int, name: str) -> None:
        if size > SMALL and size > RATIO * max(1, packed):
            raise UserError(f"{self.path}: member '{name}' expands more than {RATIO} times; not read")


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn the many errors of damaged archives into one that says which file, and what to do."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except DAMAGED as error:
        kind = type(error).__name__
        raise UserError(f"{path} is cut off or damaged ({kind}: {error}). Get it again") from error
