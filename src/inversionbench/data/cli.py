"""`inversionbench data`: what data sets there are, what they need, whether it is there, and preparing them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from inversionbench.core import numerics, registry
from inversionbench.core.errors import UserError
from inversionbench.data import sources
from inversionbench.data.base import DatasetSource, File


def add_commands(subparsers: Any) -> None:
    """Add the command `data` with its sub-commands to an argparse `add_subparsers()` object.

    Each sets `func`: arguments -> exit status (0 done, 1 files are missing); bad input raises `UserError`.
    """
    data = subparsers.add_parser("data", help="data sets: list, show, check, prepare, combine")
    commands = data.add_subparsers(dest="data_command", required=True)
    _command(commands, "list", _list, "all data sets and whether their files are there", named=False)
    _command(commands, "show", _show, "the card of a data set: source, terms, files, options")
    check = _command(commands, "check", _check, "verify the files of a data set against their checksums")
    prepare = _command(commands, "prepare", _prepare, "write the arrays that all later steps read")
    for parser in (check, prepare):
        parser.add_argument(
            "--option", action="append", default=[], metavar="K=V", help="an option of the data set"
        )
    check.add_argument("--partial", action="store_true", help="a folder may hold fewer pictures than the set")
    prepare.add_argument("--out", type=Path, help="folder to write (default: prepared/NAME)")
    prepare.add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    prepare.add_argument("--download", action="store_true", help="fetch missing files where terms allow it")
    combine = commands.add_parser("combine", help="private parts of one prepared set, public of another")
    combine.add_argument("private", type=Path, help="prepared folder")
    combine.add_argument("public", type=Path, help="prepared folder")
    combine.add_argument("--out", type=Path, required=True)
    combine.set_defaults(func=_combine)


def _command(commands: Any, name: str, func: Any, text: str, named: bool = True) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    if named:
        parser.add_argument("name", help="id of the data set")
    parser.add_argument(
        "--root", type=Path, help=f"folder with one sub-folder per data set (default: ${sources.ROOT_VARIABLE})"
    )
    parser.set_defaults(func=func)
    return parser


def _list(args: argparse.Namespace) -> int:
    root = sources.data_root(args.root)
    rows = [("name", "modality", "classes", "files", "terms")]
    for name in registry.methods("dataset"):
        source: Any = registry.get("dataset", name)
        state = "yours" if _needed(name) else _state(_source(name, {}), name, root)
        rows.append((name, source.card.modality, source.task, state, source.card.terms))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]).rstrip())
    return 0


def _needed(name: str) -> list[str]:
    """Options that a data set cannot be made without: those of one's own data."""
    fields = registry.describe("dataset", name).fields
    return [option for option, default in fields.items() if default is registry.REQUIRED]


def _state(source: DatasetSource, name: str, root: Path | None) -> str:
    if source.card.embedded:
        return "embedded"
    found = sources.present(source, name, root)
    return f"present ({found.release})" if found and found.release else "present" if found else "missing"


def _show(args: argparse.Namespace) -> int:
    method = registry.describe("dataset", args.name)
    needed = _needed(args.name)
    source = _source(args.name, dict.fromkeys(needed, "-"))
    card, root = source.card, sources.data_root(args.root)
    print(method.doc.strip(), end="\n\n")
    for field in ("name", "modality", "source", "terms", "citation", "notes", "manual_steps"):
        if value := getattr(card, field):
            print(f"{field.replace('_', ' ')}: {value}")
    print("options:")
    for option, default in method.fields.items():
        print(f"  {option}: {method.types[option]}" + (f" = {default!r}" if option not in needed else " (required)"))
    if card.embedded or needed:
        print(f"files: {'none, it is embedded' if card.embedded else 'yours'}")
        return 0
    print(f"files, below {root or '$' + sources.ROOT_VARIABLE}/{' or '.join(sources.folders(source, args.name))}:")
    for release, paths in sources.releases(source).items():
        for path in paths:
            print(f"  {release + ': ' if release else ''}{_file(sources.declared(source, path))}")
    print(f"state: {_state(source, args.name, root)}")
    return 0


def _file(file: File) -> str:
    sums = {"sha256": file.sha256, "md5": file.md5, "sha256 of the content": file.content_sha256}
    known = [f"{kind} {value}" for kind, value in sums.items() if value]
    size = [f"{file.size:,} bytes"] if file.size else []
    url = [file.url] if file.url else ["no direct download"]
    return "; ".join([file.path, *size, *(known or ["no checksum known, recorded"]), *url])


def _check(args: argparse.Namespace) -> int:
    source = _source(args.name, _options(args.option))
    if source.card.embedded:
        print(f"{args.name}: embedded, nothing to check")
        return 0
    try:
        found = sources.find(source, args.name, sources.data_root(args.root), False, False)
    except sources.MissingData as error:
        print(error)
        return 1
    compared = True
    for file, path in found.files:
        if path.is_dir():
            print(f"{file.path}: {sources.compare_folder(file, path, args.partial, sys.stderr.isatty())}")
            compared = compared and file.count is not None and not args.partial
        else:
            entry = sources.check(args.name, file, path)
            print(f"{file.path}: {entry['size']:,} bytes, {entry['sha256']}")
            compared = compared and bool(file.sha256 or file.md5 or file.content_sha256)
    title = sources.title(source, found.release)
    print(f"{args.name}: all files of {title} are {'right' if compared else 'there; not all of them have a checksum'}")
    return 0


def _prepare(args: argparse.Namespace) -> int:
    numerics.apply("portable")
    from inversionbench.data.prepare import prepare

    out = args.out or Path("prepared") / args.name
    options = _options(args.option)
    data = prepare(args.name, options, args.root, out, seed=args.seed, download=args.download)
    counts = ", ".join(f"{part} {count}" for part, count in data.meta["split"]["counts"].items())
    print(f"{data.meta['title']}: {data.classes} classes, x {data.shape}, {counts}\n{out}: digest {data.digest}")
    return 0


def _combine(args: argparse.Namespace) -> int:
    numerics.apply("portable")
    from inversionbench.data.prepare import combine

    data = combine(args.private, args.public, args.out)
    print(f"{data.meta['title']}\n{args.out}: digest {data.digest}")
    return 0


def _options(given: list[str]) -> dict[str, Any]:
    """`k=v` pairs, values as YAML (so 5, true, [1, 2] and text mean what they look like)."""
    import yaml

    out = {}
    for pair in given:
        key, mark, value = pair.partition("=")
        if not mark or not key:
            raise UserError(f"--option {pair}: expected KEY=VALUE")
        try:
            out[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--option {pair}: the value is not YAML ({error})") from error
    return out


def _source(name: str, options: dict[str, Any]) -> DatasetSource:
    from inversionbench.data.prepare import make

    return make(name, options)
