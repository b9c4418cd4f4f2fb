"""The files of a folder, the same on every machine: links followed, side files of desktop systems left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from inversionbench.core.errors import UserError

# what desktop systems, editors and network drives leave beside data; in folders any hidden name as well
JUNK = re.compile(r"(^|/)(__MACOSX(/|$)|@eaDir(/|$)|\.DS_Store$|\._[^/]*$|Thumbs\.db$|desktop\.ini$)")


def walk(folder: Path, endings: tuple[str, ...] = ()) -> list[tuple[str, Path]]:
    """(name below `folder` with slashes, path) of every regular file, sorted by name.

    endings: lower-case endings of the files that are wanted (empty: all). Links to files and folders count as what
    they point to. Names that begin with a dot, and `JUNK`, are left out. Raises `UserError` for what cannot be read as
    a file (broken links, pipes, devices), for links that lead back to a folder around them, and for names that are not
    UTF-8.
    """
    return sorted((path.relative_to(folder).as_posix(), path) for path in _files(folder, endings, (_same(folder),)))


def _files(folder: Path, endings: tuple[str, ...], around: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or JUNK.search(entry.name):
                continue
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                raise UserError(f"{os.fsencode(path)!r}: the name is not UTF-8; rename it") from None
            if entry.is_dir():
                here = _same(path)
                if here in around:
                    raise UserError(f"{path}: a link to a folder that holds it; remove it")
                yield from _files(path, endings, (*around, here))
            elif not endings or path.suffix.lower() in endings:
                if not entry.is_file():
                    raise UserError(f"{path}: a broken link, or no regular file; get it again or remove it")
                yield path


def _same(folder: Path) -> tuple[int, int]:
    """What two paths to one folder have in common."""
    found = folder.stat()
    return found.st_dev, found.st_ino
