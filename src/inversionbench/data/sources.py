"""The declared input files of a data set: where they must lie, whether they are there and right.

Every data set has a folder below the data root, named by its id (or one of the class's `folders`). A class
may offer several releases (`needs()`: release -> paths of its card's files); without `needs` all files of the
card are one release. A file declared as `NAME.gz` with a `content_sha256` may also lie there unpacked as
`NAME`, or compressed again by a mirror. A declared folder is taken as it is; its list of files is recorded.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.files import write_text
from inversionbench.data import _tree
from inversionbench.data.base import Card, DatasetSource, File

ROOT_VARIABLE = "INVERSIONBENCH_DATA"
BLOCK = 1 << 20
MANY = 13  # names of missing files in one line
LARGE = 1 << 30  # bytes above which checking a file shows its progress
CONTENT_LIMIT = 1 << 31  # bytes a declared .gz may unpack to while its content is checked


class MissingData(UserError):
    """Declared files are absent. `files`: their paths; `folder`: where they were looked for."""

    def __init__(self, message: str, files: tuple[str, ...], folder: Path | None) -> None:
        super().__init__(message)
        self.files, self.folder = files, folder


@dataclass(frozen=True)
class Found:
    """The files of one release, all present. `files`: what was declared, and the path it was found at."""

    name: str
    release: str
    folder: Path
    files: tuple[tuple[File, Path], ...]

    def fingerprint(self) -> list[list[Any]]:
        """Name, size and time of change of each file, of a folder those of all its files: needs no file to be read, and
        is different when one was replaced, added or removed."""
        return [[path.name, *(_times(path) if path.is_dir() else _state(path))] for _, path in self.files]


def data_root(root: Path | None) -> Path | None:
    """The given root, or the one of the environment variable, or None."""
    value = root or os.environ.get(ROOT_VARIABLE)
    return Path(value).expanduser() if value else None


def releases(source: DatasetSource | type[DatasetSource]) -> dict[str, tuple[str, ...]]:
    """Release -> paths of the files it needs, in order of preference."""
    needs = getattr(source, "needs", None)
    if needs is None or isinstance(source, type):
        return {"": tuple(f.path for f in (source.card.files if isinstance(source, type) else source.files()))}
    chosen, offered = getattr(source, "release", "auto"), needs()
    if chosen == "auto":
        return offered
    if chosen not in offered:
        hint = suggest(chosen, ["auto", *offered])
        raise UserError(f"{source.card.name}: unknown release '{chosen}': {hint}")
    return {chosen: offered[chosen]}


def folders(source: DatasetSource, name: str) -> tuple[str, ...]:
    return (name, *source.folders)


def _root(source: DatasetSource, root: Path | None) -> Path | None:
    """Files that are named by absolute paths need no data root."""
    own = bool(source.files()) and all(Path(f.path).is_absolute() for f in source.files())
    return root or (Path("/") if own else None)


def declared(source: DatasetSource, path: str) -> File:
    """The entry for a path; a path that the data set does not declare is a mistake in it."""
    for file in source.files():
        if file.path == path:
            return file
    raise KeyError(f"{source.card.name}: '{path}' is not among the files of the card")


def locate(folder: Path, file: File) -> Path | None:
    """Where a declared file lies: under its name, or unpacked if its content can be checked."""
    path = folder / file.path
    if path.exists():
        return path
    if file.content_sha256 and path.suffix == ".gz" and path.with_suffix("").is_file():
        return path.with_suffix("")
    return None


def present(source: DatasetSource, name: str, root: Path | None) -> Found | None:
    """The first release whose files are all there (not yet verified), or None."""
    root = _root(source, root)
    for sub in folders(source, name) if root else ():
        for release, paths in releases(source).items():
            files = [declared(source, p) for p in paths]
            places = [locate(root / sub, f) for f in files]  # type: ignore[operator]
            if files and all(places):
                return Found(name, release, root / sub, tuple(zip(files, places)))  # type: ignore
    return None


def find(source: DatasetSource, name: str, root: Path | None, download: bool, progress: bool) -> Found:
    """The files of a data set; `MissingData` with what to do if no release is complete."""
    found = present(source, name, root)
    if found is None and download and root is not None:
        from inversionbench.data import _download

        _download.fetch(source, name, root, progress)
        found = present(source, name, root)
    if found is None:
        raise _missing(source, name, root)
    return found


def release_of(source: DatasetSource, folder: Path) -> str:
    """Which release lies in a data set's folder: what `build` asks."""
    for release, paths in releases(source).items():
        if all(locate(folder, declared(source, p)) for p in paths):
            return release
    raise FileNotFoundError(folder)


def path_of(source: DatasetSource, folder: Path, path: str) -> Path:
    """Where a declared file of a found release lies."""
    place = locate(folder, declared(source, path))
    if place is None:
        raise FileNotFoundError(folder / path)
    return place


def _missing(source: DatasetSource, name: str, root: Path | None) -> MissingData:
    card, wanted, root = source.card, releases(source), _root(source, root)
    if root is None:
        text = f"no data root is set: give one, or set {ROOT_VARIABLE} to the folder that holds '{name}/'"
        return MissingData(f"{card.name}: {text}.\n{steps(card)}", tuple(sum(wanted.values(), ())), None)
    folder = next((root / s for s in folders(source, name) if s != "." and (root / s).is_dir()), root / name)
    lines, absent = [], []
    for release, paths in wanted.items():
        gone = [p for p in paths if locate(folder, declared(source, p)) is None]
        absent += gone
        rest = f" and {len(gone) - MANY} more" if len(gone) > MANY else ""
        lines.append(f"  {release + ': ' if release else ''}{', '.join(gone[:MANY])}{rest}")
    also = "" if len(wanted) == 1 else " (one of these releases is enough)"
    message = f"{card.name}: files are missing in {folder}{also}:\n" + "\n".join(lines) + f"\n{steps(card)}"
    return MissingData(message, tuple(dict.fromkeys(absent)), folder)


def steps(card: Card) -> str:
    """How a person gets the files."""
    if card.manual_steps:
        return f"What to do: {card.manual_steps}"
    return f"What to do: get the files from {card.source} (terms: {card.terms})."


def title(source: DatasetSource, release: str) -> str:
    """What results are called: a release that differs from the original carries its own name."""
    return source.titles.get(release, source.card.name)


def verify(
    found: Found, remember: Callable[..., Any] | None = None, progress: bool = False
) -> list[dict[str, Any]]:
    """Check size and checksums of all files; returns what was measured, for `dataset.json`.

    remember: state of a run that may be taken up again (`Writer.remember`), so that large files are not
    read twice.
    """
    known: dict[str, Any] = (remember("verified") if remember else None) or {}
    out = []
    for file, path in found.files:
        if file.path not in known:
            tree = path.is_dir() and not (file.sha256 or file.md5 or file.content_sha256)
            known[file.path] = _listing(file, path, progress) if tree else check(found.name, file, path, progress)
            if remember:
                remember("verified", known)
        out.append(known[file.path])
    return out


def check(name: str, file: File, path: Path, progress: bool = False) -> dict[str, Any]:
    """Check one file against its card (`UserError` if it differs); returns size and checksums."""
    if not path.is_file():
        raise UserError(f"data set '{name}': {path} is not a regular file")
    size, unpacked = path.stat().st_size, path.name != Path(file.path).name
    if file.size is not None and not file.content_sha256 and size != file.size:
        raise UserError(
            f"data set '{name}': {path} has {size} bytes, expected {file.size}; "
            "it is cut off or another file. Get it again"
        )
    with_md5 = file.md5 is not None and not (file.sha256 or file.content_sha256)
    sha256, md5 = _digest(path, with_md5, progress and size > LARGE)
    got: dict[str, Any] = {"path": file.path, "size": size, "sha256": sha256}
    if file.content_sha256:
        content = sha256 if unpacked or path.suffix != ".gz" else _content(name, path)
        _compare(name, path, "sha256 of its content", content, file.content_sha256)
        return {**got, "content_sha256": content}
    if file.sha256:
        _compare(name, path, "sha256", sha256, file.sha256)
    elif file.md5:
        _compare(name, path, "md5", md5, file.md5)
    return got


def _compare(name: str, path: Path, kind: str, got: str, expected: str) -> None:
    if got != expected:
        raise UserError(
            f"data set '{name}': {path}: {kind} is {got}, expected {expected}; "
            "the file is damaged or another version. Get it again from the source in the card"
        )


def _digest(path: Path, with_md5: bool, progress: bool = False) -> tuple[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        blocks = iter(lambda: handle.read(BLOCK), b"")
        for block in _bar(blocks, path) if progress else blocks:
            sha256.update(block)
            if with_md5:
                md5.update(block)
    return sha256.hexdigest(), md5.hexdigest() if with_md5 else ""


def _bar(blocks: Iterator[bytes], path: Path) -> Iterator[bytes]:
    from tqdm import tqdm

    return iter(tqdm(blocks, desc=path.name, total=path.stat().st_size // BLOCK, unit="MiB", leave=False))


def _content(name: str, path: Path) -> str:
    """sha256 of what a .gz holds, without keeping it."""
    total, digest = 0, hashlib.sha256()
    try:
        with gzip.open(path) as handle:
            while block := handle.read(BLOCK):
                total += len(block)
                if total > CONTENT_LIMIT:
                    raise UserError(f"data set '{name}': {path} unpacks to more than {CONTENT_LIMIT} bytes")
                digest.update(block)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"data set '{name}': {path} cannot be unpacked ({error}); get it again") from error
    return digest.hexdigest()


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _times(folder: Path) -> tuple[int, str]:
    """Number of a folder's files, and a digest of their names, sizes and times of change."""
    found = [(name, *_state(path)) for name, path in _tree.walk(folder)]
    return len(found), hashlib.sha256(repr(found).encode()).hexdigest()


def _listing(file: File, folder: Path, progress: bool = False) -> dict[str, Any]:
    """sha256 over the sorted names and contents of all files of a folder, which has no checksum of its own."""
    found = digests(folder, progress)
    text = "".join(f"{name}\t{digest}\n" for name, digest in found.items())
    total = sum(path.stat().st_size for _, path in _tree.walk(folder))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {"path": file.path, "size": total, "files": len(found), "listing_sha256": sha256}


def digests(folder: Path, progress: bool = False) -> dict[str, str]:
    """sha256 of every file of a folder, by its name below it."""
    found = _tree.walk(folder)
    return {name: _digest(path, False)[0] for name, path in (_counted(found, folder) if progress else found)}


def _counted(found: list[tuple[str, Path]], folder: Path) -> Iterator[tuple[str, Path]]:
    from tqdm import tqdm

    return iter(tqdm(found, desc=folder.name, unit="files", leave=False))


def compare_folder(file: File, folder: Path, partial: bool, progress: bool = False) -> str:
    """What can be said of a declared folder that has no published checksum: one sentence; `UserError` where it is not
    what it should be, with the first file that differs.

    Its files are compared with the list of checksums beside it (`.NAME.sha256`, as sha256sum writes it), which is
    written where there is none, and their number with the declared one, unless `partial`.
    """
    found, manifest = digests(folder, progress), folder.with_name(f".{folder.name}.sha256")
    if file.count is not None and len(found) != file.count and not partial:
        raise UserError(f"{folder} holds {len(found):,} files, expected {file.count:,}; get the others, or take what "
                        "is there with --partial")  # fmt: skip
    count = f"{len(found):,} files" + (f" of {file.count:,}" if file.count not in (None, len(found)) else "")
    if manifest.is_file():
        known = {name: digest for digest, name in (line.split("  ", 1) for line in manifest.read_text().splitlines())}
        different = sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name))
        if different:
            first = different[0]
            what = "is missing" if first not in found else "is new" if first not in known else "has other content"
            raise UserError(f"{folder / first} {what} ({len(different)} files differ from {manifest}; where that is "
                            "right, delete the list and check again)")  # fmt: skip
        return f"{count}, as in {manifest.name}"
    try:
        write_text(manifest, "".join(f"{digest}  {name}\n" for name, digest in found.items()))
    except OSError:
        return f"{count}; no list to compare with, and none can be written there"
    return f"{count}; first sight, their checksums are now in {manifest.name}"
