"""The house has one direction: what a folder imports lies below it, types apart."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from inversionbench.core import registry

# from the ground up, as docs/architecture.md has it; folders of one line know nothing of each other
FLOORS = (
    ("core",), ("data", "models"), ("metrics",), ("oracle",), ("gradients", "latent"), ("defenses",), ("training",),
    ("priors", "federation"), ("tracks",), ("plan",), ("survey",), ("figures",), ("audit",), ("workflow",),
)  # fmt: skip
FLOOR = {folder: height for height, folders in enumerate(FLOORS) for folder in folders}
MODULES = {registry.module_of(path): path for path in registry.PACKAGE.rglob("*.py")}


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from running(child)


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, at its top or inside a function."""
    out = set()
    for node in running(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            out |= inside or {node.module}
    return {name for name in out if name in MODULES or f"{name}.__init__" in MODULES}


def folder(module: str) -> str:
    """The folder of a module; `tracks/<id>/figures` draws from the survey, which finds it by looking."""
    parts = module.split(".")
    if parts[1:2] == ["tracks"] and parts[3:4] == ["figures"]:
        return "figures"
    return parts[1] if len(parts) > 1 else ""


def test_imports_point_down() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in imported(path)
        if (here := folder(module)) in FLOOR and folder(other) in FLOOR and here != folder(other)
        and FLOOR[folder(other)] >= FLOOR[here]
    ]  # fmt: skip
    assert sorted(wrong) == []


def test_every_folder_has_its_floor() -> None:
    folders = {path.name for path in registry.PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == FLOOR.keys() - {"figures"}


def test_tracks_know_nothing_of_each_other() -> None:
    def track(module: str) -> str:
        parts = module.split(".")
        return parts[2] if parts[1:2] == ["tracks"] and len(parts) > 3 else ""

    crossing = [f"{module} imports {other}" for module, path in MODULES.items() for other in imported(path)
                if track(module) and track(other) and track(module) != track(other)]  # fmt: skip
    assert crossing == []


def test_no_two_modules_import_each_other_at_the_top() -> None:
    """A circle of imports at the top of modules works by luck of the order."""
    tops = {
        module: {f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in MODULES else node.module
                 for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom) and node.module
                 for a in node.names}
        for module, path in MODULES.items()
    }  # fmt: skip
    assert [(a, b) for a, found in tops.items() for b in found if a < b and a in tops.get(b, ())] == []
