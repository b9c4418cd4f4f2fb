"""From the name of a method to its code, and to what can be said about it without importing it.

A method is a file: `tracks/<track>/attacks/<id>.py`, `defenses/<family>/<id>.py`, `data/<id>.py`,
`metrics/<id>.py`, `priors/<id>.py`. Files whose name begins with an underscore, and those of
`SHARED`, are shared parts. The file defines one public class that carries the method (for metrics:
functions), named by the class attribute `id`. `describe` reads fields, defaults and class attributes from the
source text, so that the workflow can plan and validate thousands of cells without importing torch; `get` imports.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from inversionbench.core.errors import UserError, suggest

PACKAGE = Path(__file__).parents[1]
PATTERNS = {
    "attack": "tracks/*/attacks/*.py",
    "defense": "defenses/*/*.py",
    "dataset": "data/*.py",
    "metric": "metrics/*.py",
    "prior": "priors/*.py",
}
SHARED = {"base", "prepare", "sources", "cli"}  # public modules of these folders that are no method
REQUIRED = object()


@dataclass(frozen=True)
class Method:
    """One method as its source text describes it.

    `fields`: parameter name -> default (`REQUIRED` where there is none). `types`: name -> annotation; values that a
    `Literal` names are the only ones.
    `attributes`: class attributes that are literals (level, hooks, budget, ...). `group`: the folder (track of
    an attack, family of a defense).
    """

    id: str
    kind: str
    group: str
    path: Path
    module: str
    class_name: str
    doc: str
    fields: Mapping[str, Any]
    types: Mapping[str, str]
    attributes: Mapping[str, Any]


@cache
def methods(kind: str) -> dict[str, Method]:
    """All methods of a kind ('attack', 'defense', 'dataset', 'metric'), by id."""
    found: dict[str, Method] = {}
    for path in sorted(PACKAGE.glob(PATTERNS[kind])):
        if path.stem.startswith(("_", ".")) or path.stem in SHARED:
            continue
        method = _read(kind, path)
        if method.id in found:
            raise UserError(f"two {kind}s are named '{method.id}': {found[method.id].path} and {path}")
        found[method.id] = method
    return found


def describe(kind: str, name: str) -> Method:
    """The static description of one method; an unknown name is a `UserError` with the nearest valid one."""
    known = methods(kind)
    if name not in known:
        raise UserError(f"unknown {kind} '{name}': {suggest(name, known)}")
    return known[name]


def get(kind: str, name: str) -> type:
    """Import a method and return its class (of a metric: its function)."""
    method = describe(kind, name)
    return getattr(importlib.import_module(method.module), method.class_name)


def check_parameters(method: Method, given: Mapping[str, Any], where: str) -> None:
    """Refuse parameters that the method does not have, or of the wrong plain type."""
    for name, value in given.items():
        if name not in method.fields:
            raise UserError(f"{where}: '{method.id}' has no parameter '{name}': {suggest(name, method.fields)}")
        allowed = _literals(method.types[name])
        if allowed and value not in allowed:
            raise UserError(f"{where}.{name}: got {value!r}: {suggest(str(value), map(str, allowed))}")
        if not _fits(value, method.types[name]):
            raise UserError(f"{where}.{name}: expected {method.types[name]}, got {value!r}")
    missing = [n for n, default in method.fields.items() if default is REQUIRED and n not in given]
    if missing:
        raise UserError(f"{where}: '{method.id}' needs {', '.join(missing)}")


def _fits(value: Any, annotation: str) -> bool:
    """Whether a YAML value fits a plain annotation; annotations we do not know are left to the class."""
    plain = {
        "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
        "float": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
        "str": lambda v: isinstance(v, str),
        "bool": lambda v: isinstance(v, bool),
        "None": lambda v: v is None,
    }
    options = [part.strip() for part in annotation.split("|")]
    checks = [plain[o] if o in plain else _sequence if o.startswith(("tuple", "list")) else None for o in options]
    return any(check is None or check(value) for check in checks)


def _literals(annotation: str) -> tuple[Any, ...]:
    """The values that `Literal[...]`, or several of them, allow; nothing for other annotations."""
    parts = annotation.split(" | ")
    if not all(part.startswith("Literal[") for part in parts):
        return ()
    return tuple(v for part in parts for v in ast.literal_eval(part.removeprefix("Literal")))


def _written_out(annotation: str) -> str:
    """An annotation with the types that `core/attack.py` gives a name in place of the names."""
    path = PACKAGE / "core" / "attack.py"
    body = _parse(path).body if path.is_file() else []
    shared = {ast.unparse(n.targets[0]): ast.unparse(n.value) for n in body if isinstance(n, ast.Assign)}
    return " | ".join(shared.get(part, part) for part in annotation.split(" | "))


def _sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _read(kind: str, path: Path) -> Method:
    tree = _parse(path)
    relative = path.relative_to(PACKAGE).with_suffix("")
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    carriers = [c for c in classes if _attributes(c).get("id") == path.stem] or (
        [c for c in classes if kind == "dataset"][:1]
    )
    if not carriers and kind != "metric":
        raise UserError(f"{path}: no public class with `id = '{path.stem}'`")
    fields: dict[str, Any] = {}
    types: dict[str, str] = {}
    attributes: dict[str, Any] = {}
    for body in _lineage(carriers[0], path) if carriers else ():
        own, annotations = _fields(body)
        fields, types = fields | own, types | annotations
        kept = {k: v for k, v in attributes.items() if k not in _assignments(body)}
        attributes = kept | _attributes(body)
    for name in (*attributes.get("budget", ()), *attributes.get("published", ())):
        if name not in fields:
            raise UserError(f"{path}: budget or published names '{name}': {suggest(name, fields)}")
    return Method(
        id=path.stem,
        kind=kind,
        group=relative.parts[1] if len(relative.parts) > 2 else "",
        path=path,
        module=".".join(("inversionbench", *relative.parts)),
        class_name=carriers[0].name if carriers else path.stem,
        doc=ast.get_docstring(tree) or "",
        fields=fields,
        types=types,
        attributes=attributes,
    )


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def _lineage(body: ast.ClassDef, path: Path) -> list[ast.ClassDef]:
    """The class and its bases inside the package, the farthest base first: later ones overrule."""
    line = []
    for base in reversed(body.bases):
        found = _find_class(ast.unparse(base), path)
        if found:
            line += [node for node in _lineage(*found) if node not in line]
    return [*line, body]


def _find_class(name: str, path: Path) -> tuple[ast.ClassDef, Path] | None:
    """A class by its name in the module at `path`: defined there, or imported from the package."""
    for node in _parse(path).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, path
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    base = PACKAGE.joinpath(*(node.module or "").split(".")[1:])
                    home = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
                    return _find_class(alias.name, home) if home.is_file() else None
    return None


def _attributes(body: ast.ClassDef) -> dict[str, Any]:
    """Class attributes that are literals."""
    out = {}
    for name, value in _assignments(body).items():
        try:
            out[name] = _literal(value)
        except ValueError:
            continue
    return out


def _assignments(body: ast.ClassDef) -> dict[str, ast.expr]:
    """Class attributes with a value: `name = ...` and `name: ClassVar[...] = ...`."""
    out = {}
    for node in body.body:
        if isinstance(node, ast.Assign):
            out.update({target.id: node.value for target in node.targets if isinstance(target, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            out.update({node.target.id: node.value} if "ClassVar" in ast.unparse(node.annotation) else {})
    return out


def _fields(body: ast.ClassDef) -> tuple[dict[str, Any], dict[str, str]]:
    fields: dict[str, Any] = {}
    types: dict[str, str] = {}
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        annotation = ast.unparse(node.annotation)
        if "ClassVar" in annotation:
            continue
        types[node.target.id] = _written_out(annotation)
        try:
            fields[node.target.id] = REQUIRED if node.value is None else _literal(node.value)
        except ValueError:
            fields[node.target.id] = ast.unparse(node.value) if node.value else REQUIRED
    return fields, types


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "frozenset":
        return frozenset(ast.literal_eval(node.args[0])) if node.args else frozenset()
    return ast.literal_eval(node)
