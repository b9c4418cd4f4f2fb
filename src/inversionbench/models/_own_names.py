"""A network of one's own in params.yaml, checked without importing it.

    model: {import: package:factory, weights: weights.safetensors, sha256: ..., mean: [0.5], std: [0.25]}

import      `package:factory` or `file.py:factory`, which makes a torch.nn.Module; `arguments` are given to it
weights     a file of plain tensors that it starts from; sha256: of that file, refused where it differs
mean, std   of the inputs, by channel: the network reads (pixels in [0, 1] - mean) / std
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inversionbench.core.errors import UserError
from inversionbench.core.provenance import file_digest
from inversionbench.core.settings import check_options

NAME = "own"
OPTIONS: dict[str, Any] = {"import": "", "weights": None, "sha256": None, "mean": [0.0], "std": [1.0], "arguments": []}
KINDS = {"import": "str", "weights": "str | None", "sha256": "str | None", "mean": "tuple[float, ...]",
         "std": "tuple[Positive, ...]", "arguments": "list"}  # fmt: skip


def check_own(model: Mapping[str, Any], where: str) -> None:
    """Refuse a network of one's own whose code or weights are not there, or are others than was said."""
    check_options(model, {NAME: OPTIONS}, KINDS, where, "network")
    if not (named := model.get("import")):
        raise UserError(f"{where}: name: {NAME} needs `import: package:factory`")
    source(named, where)
    weights = _weights(model)
    if weights is None:
        if model.get("sha256"):
            raise UserError(f"{where}.sha256: there are no `weights` to compare with")
        return
    if not weights.is_file():
        raise UserError(f"{where}.weights: no such file: {weights}")
    if model.get("sha256") and (got := file_digest(weights)) != model["sha256"]:
        raise UserError(f"{where}.sha256: {weights} has {got}, expected {model['sha256']}")


def source(named: str, where: str = "import") -> Path:
    """The file that `package:factory` or `file.py:factory` names; it is not imported."""
    place, _, factory = named.rpartition(":")
    if not place or not factory.isidentifier():
        raise UserError(f"{where}.import: expected package:factory or file.py:factory, got '{named}'")
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise UserError(f"{where}.import: no such file: {path}")
        return path
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        raise UserError(f"{where}.import: '{place}' cannot be imported: is it installed, or in a folder of `plugins`?")
    return Path(spec.origin)


def digests(model: Mapping[str, Any]) -> list[str]:
    """Of code and weights of a network of one's own, so that a change of either runs its cells again; else nothing."""
    if model.get("name") != NAME:
        return []
    weights = _weights(model)
    return [file_digest(source(model["import"])), *([file_digest(weights)] if weights else [])]


def _weights(model: Mapping[str, Any]) -> Path | None:
    return Path(model["weights"]).expanduser() if model.get("weights") else None
