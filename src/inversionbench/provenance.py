"""Digests: of the code that a rule runs, of configurations and of files.

Snakemake sees a changed rule but not changed package code, and a git commit would re-run everything. So
every rule gets the digest of exactly the modules that it runs: the import closure of its entry points,
read from the source text without importing anything. For an entry point `module:function` only the imports
of that function count (and those at the top of its module); everything reached from there counts whole.
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

PACKAGE = "inversionbench"
ROOT = Path(__file__).parent


@cache
def code_digest(*entries: str) -> str:
    """sha256 over the source of all modules of the package that the entry points reach.

    entries: "inversionbench.attacks.federated.dlg" or "inversionbench.tracks.federated:train_target".
    """
    closure: set[str] = set()
    parts: list[str] = []
    for entry in entries:
        module, _, function = entry.partition(":")
        if function:
            source, imports = _function(module, function)
            parts.append(source)
        else:
            imports = {module}
        for name in imports:
            _reach(name, closure)
    digest = hashlib.sha256("".join(sorted(parts)).encode())
    for name in sorted(closure):
        digest.update(name.encode())
        digest.update(_path(name).read_bytes())  # type: ignore[union-attr]
    return digest.hexdigest()


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


def _reach(name: str, seen: set[str]) -> None:
    """Add `name` and all that it imports, unless it is no module of the package."""
    path = _path(name)
    if path is None or name in seen:
        return
    seen.add(name)
    parent = name.rpartition(".")[0]
    if parent:
        _reach(parent, seen)  # importing a module runs the __init__ of its package
    for imported in _imports(path, name):
        _reach(imported, seen)


@cache
def _path(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    base = ROOT.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


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


def _function(module: str, function: str) -> tuple[str, set[str]]:
    """Source of one function or method, its imports, and those at the top of its module."""
    path = _path(module)
    if path is None:
        raise ValueError(f"no module {module}")
    tree = _tree(path)
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function]
    if not nodes:
        raise ValueError(f"{module} has no function '{function}'")
    top = ast.Module([n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
    imports = _collect(top, module, path) | _collect(nodes[0], module, path)
    helpers = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("_")]
    source = "".join(ast.unparse(n) for n in [nodes[0], *helpers])
    return source, imports | {i for h in helpers for i in _collect(h, module, path)}
