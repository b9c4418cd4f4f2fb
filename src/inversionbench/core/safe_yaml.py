"""A YAML file as plain values that are safe to check and to run: bounded, finite, with names that are names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from inversionbench.core.errors import UserError

NODES, DEPTH, TEXT = 200_000, 40, 10_000  # values in all (an alias counts each time), nesting, characters of one text
LARGEST = 2**63 - 1
# entries, scenarios and scales become folders, words of a shell line and keys of tables
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
NAMED = ("datasets", "evaluators", "priors", "scenarios", "attacks", "defenses")
TAKEN = {"defenses": {"none"}, "scale": {"published", "by-hand"}}


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<: *other`: keys beside it may stand in the other, too
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            where = f"{node.start_mark.name}:{key_node.start_mark.line + 1}"
            if not isinstance(key, str):
                raise UserError(f"{where}: the key {key!r} is no text (YAML reads yes, no, on, off and numbers as "
                                "something else): put it in quotes")  # fmt: skip
            if key in seen:
                raise UserError(f"{where}: '{key}' stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    """The mapping that a file holds; `UserError` for anything else, with the place."""
    try:
        with path.open(encoding="utf-8") as handle:
            value = yaml.load(handle, _UniqueKeys)  # a SafeLoader
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits, a date that is none
        raise UserError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a mapping with the keys of params.yaml")
    return value


def problems(raw: Mapping[str, Any]) -> list[str]:
    """What no value of a parameter file may be, with its place; empty where all is well.

    Looked at before anything else: a file of a few lines whose aliases unfold to billions of values must not keep
    those busy who print what is wrong with it.
    """
    out: list[str] = []
    count = 0
    todo: list[tuple[str, Any, int]] = [("", raw, 0)]
    while todo:
        where, value, depth = todo.pop()
        count += 1
        if count > NODES or depth > DEPTH:
            return [f"{where}: more than {NODES} values, or nested deeper than {DEPTH}"]
        if isinstance(value, Mapping):
            out += [f"{where or 'top level'}: the key {k!r} is no text" for k in value if not isinstance(k, str)]
            todo += [(f"{where}.{k}" if where else str(k), v, depth + 1) for k, v in value.items()]
        elif isinstance(value, (list, tuple)):
            todo += [(f"{where}[{i}]", v, depth + 1) for i, v in enumerate(value)]
        elif problem := _scalar(value):
            out.append(f"{where}: {problem}")
    return sorted(out) + ([] if out else _names(raw))


def _scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number to compute with"
    if isinstance(value, (int, float)) and abs(value) > LARGEST:
        return "larger than any number that makes sense here"
    if isinstance(value, str) and (len(value) > TEXT or not value.isprintable()):
        return "a text with line breaks or control characters, or too long"
    if not isinstance(value, (bool, int, float, str, type(None))):
        return f"expected text, number, list or mapping, got {type(value).__name__}"
    return ""


def _names(raw: Mapping[str, Any]) -> list[str]:
    given = {s: list(raw[s]) for s in NAMED if isinstance(raw.get(s), Mapping)} | {"scale": [raw.get("scale")]}
    out = []
    for section, names in given.items():
        for name in names:
            if isinstance(name, str) and (not NAME.match(name) or name in TAKEN.get(section, ())):
                taken = " is taken" if name in TAKEN.get(section, ()) else ""
                out.append(f"{section}: the name {name!r}{taken}: a letter or digit, then letters, digits, _ . - are "
                           "allowed")  # fmt: skip
    return out
