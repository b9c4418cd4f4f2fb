"""From declared files to a prepared folder: `prepare` finds, verifies, builds and writes one data set.

    files below root/<id>/ ── find ──▶ verify ──▶ build(root, Writer, rng) ──▶ checks, digests ──▶ <out>/

What is written is a folder of plain arrays, `{private,public,evaluation,heldout}/{x,y,...}.npy`, and last
`dataset.json`. All of it appears under its name at once or not at all; the work of an interrupted run waits
in a hidden folder beside it and is taken up again by the next run with the same data set, options and seed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.core.provenance import syntax
from inversionbench.data import _combine, sources
from inversionbench.data._writer import Writer
from inversionbench.data.base import Dataset, DatasetSource, load
from inversionbench.data.sources import ROOT_VARIABLE, MissingData

__all__ = ["ROOT_VARIABLE", "MissingData", "Writer", "combine", "generator", "make", "prepare"]


def prepare(
    name: str,
    options: Mapping[str, Any],
    root: Path | None,
    out: Path,
    seed: int = 0,
    progress: bool | None = None,
    download: bool = False,
) -> Dataset:
    """Prepare data set `name` into the folder `out` and open it.

    options: fields of the data set's class; others are refused. root: the folder with one sub-folder per
    data set (None: environment variable INVERSIONBENCH_DATA). progress: show bars (None: only when a person
    looks on). download: fetch missing files whose terms allow it; never done without this.
    Raises `MissingData` if declared files are absent, `UserError` for bad options and bad files.
    """
    source = make(name, options)
    out = Path(out)
    shown = sys.stderr.isatty() if progress is None else progress
    found = None
    if not source.card.embedded:
        found = sources.find(source, name, sources.data_root(root), download, shown)
    key = _key(source, name, seed, found)
    if _has(out, key):
        return load(out)
    release = found.release if found else ""
    facts = {"options": _plain(source), "seed": seed, "release": release}
    with Writer(out, name, key, progress=shown) as writer:
        facts["files"] = sources.verify(found, writer.remember, shown) if found else []
        source.build(found.folder if found else None, writer, generator(name, seed))
        writer.finish(replace(source.card, name=sources.title(source, release)), **facts)
    return load(out)


def combine(private: Path, public: Path, out: Path) -> Dataset:
    """A data set with the private, evaluation and held-out parts of one prepared folder and the public part
    of another (CelebA with a prior from FFHQ). Both must have samples of one shape."""
    first, second = _combine.opened(Path(private)), _combine.opened(Path(public))
    name = f"{first.name}+{second.name}"
    key = hashlib.sha256(f"{first.digest} {second.digest}".encode()).hexdigest()[:16]
    if _has(Path(out), key):
        return load(out)
    facts = {k: first.meta[k] for k in ("options", "seed", "release", "files")}
    with Writer(Path(out), name, key) as writer:
        _combine.write(first, second, writer)
        writer.finish(_combine.card(first, second), **facts)
    return load(out)


def make(name: str, options: Mapping[str, Any]) -> DatasetSource:
    """The data set's source with these options; unknown names and options are `UserError`s."""
    method = registry.describe("dataset", name)
    registry.check_parameters(method, options, f"data.{name}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    for key, value in values.items():
        kind = {"tuple[int, ...]": int, "tuple[str, ...]": str}.get(method.types[key])
        if kind and not all(isinstance(v, kind) and not isinstance(v, bool) for v in value):
            raise UserError(f"data.{name}.{key}: expected a list of {kind.__name__}, got {list(value)}")
    return registry.get("dataset", name)(**values)


def generator(name: str, seed: int) -> np.random.Generator:
    """The random numbers of a split: from name and seed, not from the options.

    So the same people are private at every resolution, and a smaller limit takes a part of a larger one.
    """
    entropy = hashlib.sha256(f"inversionbench/{name}/{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(entropy, "big"))


def _plain(source: DatasetSource) -> dict[str, Any]:
    """Options as JSON values, defaults included."""
    return json.loads(json.dumps(asdict(source)))


def _key(source: DatasetSource, name: str, seed: int, found: sources.Found | None) -> str:
    """What a prepared folder depends on: options, seed, the files as they lie there, and the code."""
    code = hashlib.sha256()
    for path in _modules(name):
        code.update(path.name.encode() + syntax(path).encode())
    state = {"options": _plain(source), "name": name, "seed": seed, "code": code.hexdigest()}
    state["files"] = found.fingerprint() if found else []
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def _modules(name: str) -> list[Path]:
    """The source files a data set is made by: its own, this one, and what they import of this folder."""
    folder, found = Path(__file__).parent, set[Path]()
    todo = {registry.describe("dataset", name).path, Path(__file__)}
    while todo:
        path = todo.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "inversionbench.data":
                todo |= {folder / f"{alias.name}.py" for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("inversionbench.data."):
                todo.add(folder / f"{str(node.module).rsplit('.', 1)[1]}.py")
    return sorted(found)


def _has(out: Path, key: str) -> bool:
    """Whether `out` already is what this run would write."""
    try:
        return json.loads((out / "dataset.json").read_text()).get("key") == key
    except (OSError, ValueError):
        return False
