"""Fetching declared files, only when a person asked for it: resumable, verified, then renamed."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from inversionbench.core.errors import UserError
from inversionbench.data import sources
from inversionbench.data.base import DatasetSource, File

BLOCK = 1 << 18
TIMEOUT = 30  # seconds without a byte


def fetch(source: DatasetSource, name: str, root: Path, progress: bool = False) -> None:
    """Fetch the missing files of the first release whose files all have a plain URL.

    Does nothing if there is no such release (the caller then raises `MissingData` with the manual steps).
    """
    for paths in sources.releases(source).values():
        files = [sources.declared(source, p) for p in paths]
        if files and all(f.url and (f.sha256 or f.md5 or f.content_sha256) for f in files):
            for file in files:
                if sources.locate(root / name, file) is None:
                    get(name, file, root / name / file.path, progress)
            return


def get(name: str, file: File, path: Path, progress: bool = False) -> Path:
    """Fetch one file to `path`. A cut-off download waits in `<path>.part` and is continued from its end.

    The file gets its name only after size and checksum fit; otherwise the part is deleted and a `UserError`
    says so.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _transfer(file, part, progress)
        sources.check(name, file, part)
    except UserError:
        part.unlink(missing_ok=True)
        raise
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"data set '{name}': {file.url} could not be read ({error}). Run again to continue, or put "
            f"the file by hand at {path}"
        ) from error
    part.rename(path)
    return path


def _transfer(file: File, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    if file.size is not None and have == file.size:
        return
    request = urllib.request.Request(str(file.url), headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after `have`: the part is whole, or longer than the file; verify
            return
        raise
    with answer:
        resumed = have and answer.status == 206
        length = int(answer.headers.get("Content-Length") or 0)
        total = length + (have if resumed else 0)
        _refuse_size(file, total)
        _copy(answer, part, "ab" if resumed else "wb", have if resumed else 0, total, file, progress)


def _copy(answer, part: Path, mode: str, have: int, total: int, file: File, progress: bool) -> None:
    bar = None
    if progress:
        from tqdm import tqdm

        bar = tqdm(total=total or None, initial=have, unit="B", unit_scale=True, desc=file.path, leave=False)
    with part.open(mode) as handle:
        while block := answer.read(BLOCK):
            have += len(block)
            _refuse_size(file, have)
            handle.write(block)
            if bar is not None:
                bar.update(len(block))
    if bar is not None:
        bar.close()
    if total and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


def _refuse_size(file: File, size: int) -> None:
    """A server that sends more than declared, or than any such file has, is stopped before it fills the disk."""
    most = sources.CONTENT_LIMIT if file.size is None or file.content_sha256 else file.size
    if size > most:
        raise UserError(f"{file.url}: sends {size} bytes or more, expected {most} at most; not kept")
