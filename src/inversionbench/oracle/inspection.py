"""What the file of an attack imports and calls that no attack needs: ways past the oracle that its text shows.

A look at a text proves nothing; it finds what was not hidden. `oracle.guard` watches what an attack does.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

FORBIDDEN = re.compile(r"inversionbench\.(data|plan|survey|workflow|core\.records|tracks\.\w+\.(?!attacks))")
MODULES = {"gc", "inspect", "ctypes", "subprocess", "socket", "multiprocessing", "pickle", "importlib", "builtins"}
CALLS = {"open", "exec", "eval", "compile", "__import__", "vars", "globals"}
ATTRIBUTES = {"load", "memmap", "fromfile", "read_bytes", "read_text", "_getframe", "f_locals", "__closure__",
              "__globals__", "_Oracle__calls", "_read", "system", "popen"}  # fmt: skip
LOADS = {"torch", "np", "numpy"}


def faults(path: Path) -> list[str]:
    """Imports and calls of a file that no attack needs, in words."""
    out = []
    tree = ast.parse(path.read_text())
    typing = {n for block in ast.walk(tree) if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
              for n in ast.walk(block)}  # fmt: skip
    for node in ast.walk(tree):
        if node in typing:
            continue
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{a.name}" for a in node.names]
        for name in names:
            if name.split(".")[0] in MODULES or FORBIDDEN.match(name):
                out.append(f"imports {name}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            out.append(f"calls {node.func.id}")
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr != "load" or of in LOADS:
                out.append(f"uses {of}.{node.attr}")
    return out
