"""From the name of a method to its code, and to what can be said about it without importing it.

Methods live here and in plug-ins: folders or packages laid out as this one (`use`).

A method is a file: `tracks/<track>/attacks/<id>.py`, `defenses/<family>/<id>.py`, `data/<id>.py`,
`metrics/<id>.py`, `priors/<id>.py`. Files whose name begins with an underscore, and those of
`SHARED`, are shared parts. The file defines one public class that carries the method (for metrics:
functions), named by the class attribute `id`. `describe` reads fields, defaults and class attributes from the
source text, so that the workflow can plan and validate thousands of cells without importing torch; `get` imports.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.settings import check_value

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
QUANTITY = ("id", "label", "unit", "digits", "factor", "direction", "note")  # fields of `core.quantity.Quantity`
CARD = ("name", "modality", "source", "terms")  # first fields of `data.base.Card`
GROUP = "inversionbench.plugins"  # of entry points


_plugins: dict[str, Path] = {}  # package -> its folder


def use(plugins: Sequence[str]) -> None:
    """Look for methods and tracks in these too: folders (relative to where the run starts), or names of packages that
    can be imported; and in packages that are installed with an entry point of the group `inversionbench.plugins`.

    Each is laid out as this package: `defenses/<family>/<id>.py`, `tracks/<id>/track.py`, ... `UserError` for what is
    neither.
    """
    found = dict(_found(name) for name in (*(point.value for point in entry_points(group=GROUP)), *plugins))
    if found == _plugins:
        return
    _plugins.clear()
    _plugins.update(found)
    methods.cache_clear()
    quantities.cache_clear()
    module_path.cache_clear()


def _found(plugin: str) -> tuple[str, Path]:
    folder = Path(plugin).expanduser().resolve()
    if folder.is_dir():
        if not folder.name.isidentifier():
            raise UserError(f"plugins: '{folder.name}' is imported by its name, which can be no package's")
        if str(folder.parent) not in sys.path:
            sys.path.append(str(folder.parent))
        importlib.invalidate_caches()
        plugin = folder.name
    try:
        spec = importlib.util.find_spec(plugin)
    except (ImportError, ValueError):
        spec = None
    places = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ()]
    if not places:
        raise UserError(f"plugins: '{plugin}' is neither a folder nor a package that can be imported")
    if folder.is_dir() and folder not in places:
        raise UserError(f"plugins: {folder} cannot be imported, because '{plugin}' is {places[0]}; rename the folder")
    return plugin, places[0]


def homes() -> dict[str, Path]:
    """Every package that holds methods, and its folder: this one first."""
    return {PACKAGE.name: PACKAGE, **_plugins}


def files(pattern: str) -> Iterator[Path]:
    """The files of all homes that match."""
    for home in homes().values():
        yield from sorted(home.glob(pattern))


def module_of(path: Path) -> str:
    """The dotted name of a file of a home."""
    name, home = next((n, h) for n, h in homes().items() if path.is_relative_to(h))
    inside = path.parent if path.stem == "__init__" else path.with_suffix("")
    return ".".join((name, *inside.relative_to(home).parts))


def figures() -> list[Path]:
    """The modules by which tracks draw figures of their own: `tracks/<id>/figures.py`, or a package of that name."""
    return [*files("tracks/*/figures.py"), *files("tracks/*/figures/__init__.py")]


@cache
def module_path(name: str) -> Path | None:
    """The file of a module of a home; None for other modules."""
    package, _, rest = name.partition(".")
    home = homes().get(package)
    if home is None:
        return None
    base = home.joinpath(*rest.split(".")) if rest else home
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


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
    for path in files(PATTERNS[kind]):
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


@cache
def quantities() -> dict[str, dict[str, Any]]:
    """What modules of metrics and tracks state as a `Quantity` or a `Spec`: id -> its plain values, and "module"."""
    found: dict[str, dict[str, Any]] = {}
    for path in (*files("metrics/*.py"), *files("tracks/*/*.py")):
        for statement in _parse(path).body:
            calls = ast.walk(statement) if isinstance(statement, (ast.Assign, ast.AnnAssign)) else ()
            for call in calls:
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("Quantity", "Spec"):
                    said = _stated(call, QUANTITY)
                    if other := found.get(said["id"]):
                        raise UserError(f"{path}: '{said['id']}' is a quantity of {other['module']} already")
                    found[said["id"]] = {**said, "module": module_of(path)}
    return found


def _stated(call: ast.Call, names: Sequence[str]) -> dict[str, Any]:
    """The arguments of a call that are plain values, by name; names: of those that stand without."""
    given = {**dict(zip(names, call.args)), **{word.arg or "": word.value for word in call.keywords}}
    out = {}
    for name, value in given.items():
        with suppress(ValueError):
            out[name] = _literal(value)
    return out


def check_parameters(method: Method, given: Mapping[str, Any], where: str) -> None:
    """Refuse parameters that the method does not have, of the wrong kind or outside their range."""
    for name, value in given.items():
        if name not in method.fields:
            raise UserError(f"{where}: '{method.id}' has no parameter '{name}': {suggest(name, method.fields)}")
        check_value(value, method.types[name], f"{where}.{name}")
    missing = [n for n, default in method.fields.items() if default is REQUIRED and n not in given]
    if missing:
        raise UserError(f"{where}: '{method.id}' needs {', '.join(missing)}")


def _written_out(annotation: str) -> str:
    """An annotation with the types that `core/attack.py` gives a name in place of the names."""
    path = PACKAGE / "core" / "attack.py"
    body = _parse(path).body if path.is_file() else []
    shared = {ast.unparse(n.targets[0]): ast.unparse(n.value) for n in body if isinstance(n, ast.Assign)}
    return " | ".join(shared.get(part, part) for part in annotation.split(" | "))


def _read(kind: str, path: Path) -> Method:
    tree = _parse(path)
    parts = module_of(path).split(".")
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    carriers = [c for c in classes if _attributes(c).get("id") == path.stem] or (
        [c for c in classes if kind == "dataset"][:1]
    )
    if not carriers and kind != "metric":
        raise UserError(f"{path}: no public class with `id = '{path.stem}'`")
    fields: dict[str, Any] = {}
    types: dict[str, str] = {}
    attributes: dict[str, Any] = {}
    lineage = _lineage(carriers[0], path) if carriers else []
    for body in lineage[1:]:
        if unknown := sorted(n for n in _assignments(body).keys() - _declared(lineage[0]) if not n.startswith("_")):
            raise UserError(f"{path}: {body.name} has no class attribute '{unknown[0]}': "
                            f"{suggest(unknown[0], _declared(lineage[0]))}")  # fmt: skip
    for body in lineage:
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
        group=parts[2] if len(parts) > 3 else "",
        path=path,
        module=".".join(parts),
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
        if isinstance(node, ast.ImportFrom) and (home := module_path(node.module or "")):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find_class(alias.name, home)
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


def _declared(body: ast.ClassDef) -> set[str]:
    """Class attributes that a base class names, with a value or without."""
    annotated = {n.target.id for n in body.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return annotated | _assignments(body).keys()


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
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Card":
        return _stated(node, CARD)
    return ast.literal_eval(node)
