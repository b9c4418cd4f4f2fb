"""Digests: of the code that a rule runs, of configurations and of files.

Snakemake sees a changed rule but not changed package code, and a git commit would re-run everything. So
every rule gets the digest of exactly the modules that it runs: the import closure of its entry points,
read from the source text without importing anything. For an entry point `module:function` only that function
and what it uses of its module count, imported names included; everything reached from there counts whole. What
counts is the syntax without comments and docstrings, of what computes: `BOOKKEEPING` is left out.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inversionbench.core import registry

PACKAGE = "inversionbench"
# No number hangs on these packages, modules and functions. (A step that starts in one of them counts all it reaches:
# tables are made by `survey` and from records.)
BOOKKEEPING = frozenset(f"{PACKAGE}.{name}" for name in (
    "core.errors", "core.safe_yaml",  # what is wrong with some input, in words
    "core.files", "data.sources", "data._download",  # where files lie; those of a data set count by size and time
    "core.registry", "core.catalogue", "plan",  # what there is and what is run; parameters count as configuration
    "core.records",  # how records are checked and kept; the number of their schema counts as configuration
    "core.provenance",  # the digests themselves
    "survey",  # tables and pictures
    "audit",  # of what users have; no cell hangs on it
    "workflow",  # how steps are started and what is said of them; the steps themselves are entry points, but for
    *(f"workflow.runner:{name}" for name in (
        "_Clock", "_timing", "progress", "_failure",  # clocks, progress bars and words,
        "_data_roots",  # the folders that an attack must not open,
        "_unfinished",  # the file of a training that was stopped,
        "_save_sheet", "_save_gallery",  # pictures
    )),
))  # fmt: skip


@cache
def code_digest(*entries: str) -> str:
    """sha256 over the source of all that the entry points reach.

    entries: "inversionbench.tracks.federated.attacks.dlg" or "inversionbench.tracks.federated.track:train_target".
    """
    parts, modules = reached(*entries)
    digest = hashlib.sha256("".join(sorted(parts)).encode())
    for name in sorted(modules):
        digest.update(name.encode())
        digest.update(syntax(_path(name)).encode())  # type: ignore[arg-type]
    return digest.hexdigest()


def reached(*entries: str) -> tuple[list[str], set[str]]:
    """The sources of entry points that are functions, and the names of all modules that the entry points reach."""
    parts: list[str] = []
    modules: set[str] = set()
    whole = any(_left_out(entry) for entry in entries if ":" not in entry)
    for entry in entries:
        module, _, function = entry.partition(":")
        source, imports = _function(module, function) if function else ("", {module})
        parts.append(source)
        for name in imports:
            _reach(name, modules, whole)
    return parts, modules


def config_digest(value: Any) -> str:
    """sha256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of what can change a number."""
    return {name: version(name) for name in (PACKAGE, "torch", "numpy", "scipy", "scikit-learn")}


@cache
def syntax(path: Path) -> str:
    """sha256 of what a file says to Python: its syntax tree, without comments and docstrings."""
    return hashlib.sha256(ast.dump(_tree(path)).encode()).hexdigest()


def _bare(tree: ast.Module) -> ast.Module:
    """The tree, whose docstrings are gone, and of quantities how they are called and written for people."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Quantity", "Spec"):
            node.args = node.args[:1]
            node.keywords = [word for word in node.keywords if word.arg not in registry.QUANTITY]
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                node.body = node.body[1:]
    return tree


@cache
def _left_out(name: str) -> bool:
    """Whether a module, or a package around it, is bookkeeping."""
    return name in BOOKKEEPING or ("." in name and _left_out(name.rpartition(".")[0]))


def _reach(name: str, seen: set[str], whole: bool) -> None:
    """Add `name` and all that it imports, unless it is no module of the package, or bookkeeping and not `whole`."""
    path = _path(name)
    if path is None or name in seen or (not whole and _left_out(name)):
        return
    seen.add(name)
    parent = name.rpartition(".")[0]
    if parent:
        _reach(parent, seen, whole)  # importing a module runs the __init__ of its package
    for imported in _imports(path, name):
        _reach(imported, seen, whole)


def _path(name: str) -> Path | None:
    return registry.module_path(name)


@cache
def _tree(path: Path) -> ast.Module:
    return _bare(ast.parse(path.read_text(), filename=str(path)))


@cache
def _imports(path: Path, name: str) -> frozenset[str]:
    return frozenset(_collect(_tree(path), name, path))


def _collect(tree: ast.AST, name: str, path: Path) -> set[str]:
    """Names that the import statements anywhere in `tree` may mean (modules, or attributes of modules)."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            found.add(base)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Like `ast.walk`, without what stands under `if TYPE_CHECKING`, which never runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _walk(node)


@cache
def _function(module: str, function: str) -> tuple[str, set[str]]:
    """Source of one function or method and of all it uses of its module, and what these import."""
    path = _path(module)
    if path is None:
        raise ValueError(f"no module {module}")
    tree = _tree(path)
    known = _definitions(tree)
    if function not in known:
        raise ValueError(f"{module} has no function '{function}'")
    used: set[str] = set()
    todo = [function]
    while todo:
        name = todo.pop()
        if name in known and name not in used and f"{module}:{name}" not in BOOKKEEPING:
            used.add(name)
            todo += [n for node in known[name] for n in _named(node)]
    nodes = [node for name in sorted(used) for node in known[name]]
    return "".join(map(ast.unparse, nodes)), _collect(ast.Module(nodes, []), module, path)


def _definitions(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """Functions, methods, classes, constants and imports of a module, by name."""
    found: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                one = ast.ImportFrom(node.module, [alias], node.level) if isinstance(node, ast.ImportFrom) else (
                    ast.Import([alias]))  # fmt: skip
                found.setdefault(alias.asname or alias.name.partition(".")[0], []).append(one)
    for node in [*tree.body, *(n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body)]:
        names = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
        for name in names:
            found.setdefault(name, []).append(node)
    return found


def _named(node: ast.AST) -> Iterator[str]:
    """Names that stand in `node`, and what it uses of `self`."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self":
            yield part.attr
