"""The one parser of settings: from values of params.yaml to frozen dataclasses, by the annotations of their fields.

An annotation is a name of `core.ranges`, `Literal[...]`, `str`, `bool`, `None`, `tuple[...]`, or several of them with
`|`. It is read as text, so nothing needs to be imported that a field is about.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.ranges import RANGES

Settings = TypeVar("Settings")


def parse(kind: type[Settings], given: Mapping[str, Any], where: str) -> Settings:
    """An instance of a frozen dataclass from plain values, lists as tuples; what the class itself refuses is said with
    its place. Unknown names, wrong kinds and values out of range are a `UserError`."""
    known = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in given.items():
        if name not in known:
            raise UserError(f"{where}: unknown setting '{name}': {suggest(name, known)}")
        check_value(value, known[name], f"{where}.{name}")
    try:
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})
    except (UserError, ValueError) as error:
        raise UserError(f"{where}: {error}") from None


def check_options(
    named: Mapping[str, Any], tables: Mapping[str, Collection[str]], kinds: Mapping[str, str], where: str, what: str
) -> None:
    """Refuse {"name": ..., options} whose name is not in `tables`, whose options the table of that name does not have,
    or whose values are not of the `kinds` (option -> annotation). what: what is chosen, for people."""
    if "name" not in named:
        raise UserError(f"{where}: needs `name`. Allowed: {', '.join(sorted(tables))}")
    name = str(named["name"])
    if name not in tables:
        raise UserError(f"{where}.name: unknown {what} '{name}': {suggest(name, tables)}")
    for option, value in named.items():
        if option == "name":
            continue
        if option not in tables[name]:
            raise UserError(f"{where}: '{name}' has no option '{option}': {suggest(option, tables[name])}")
        check_value(value, kinds[option], f"{where}.{option}")


def check_value(value: Any, annotation: str, where: str) -> None:
    """Refuse a YAML value that no part of an annotation allows; annotations that we do not know are left to the class.

    >>> check_value(0, "Count | None", "steps")
    Traceback (most recent call last):
    inversionbench.core.errors.UserError: steps: expected a whole number of at least 1 or nothing, got 0
    """
    parts = [part.strip() for part in annotation.split(" | ")]
    known = [_allowed(part) for part in parts]
    if any(check is None or check[1](value) for check in known):
        return
    choices = [str(v) for part in parts if part.startswith("Literal[") for v in _literals(part)]
    if choices:
        raise UserError(f"{where}: got {value!r}: {suggest(str(value), choices)}")
    raise UserError(f"{where}: expected {' or '.join(check[0] for check in known if check)}, got {value!r}")


def _allowed(part: str) -> tuple[str, Callable[[Any], bool]] | None:
    """What one part of an annotation allows: in words, and as a test of a YAML value."""
    if part in RANGES:
        return RANGES[part].says, RANGES[part].holds
    if part.startswith("Literal["):
        choices = _literals(part)
        typed = [(type(c), c) for c in choices]  # true is no 1
        return f"one of {', '.join(map(str, choices))}", lambda v: (type(v), v) in typed
    plain = {"str": ("a text", str), "bool": ("true or false", bool), "None": ("nothing", type(None))}
    if part in plain:
        said, kind = plain[part]
        return said, lambda v: isinstance(v, kind)
    if part.startswith(("tuple[", "list[")):
        return _sequence(part[part.index("[") + 1 : -1])
    if part.startswith(("tuple", "list")):
        return "a list", lambda v: isinstance(v, (list, tuple))
    return None


def _sequence(inner: str) -> tuple[str, Callable[[Any], bool]]:
    """What `tuple[A, ...]`, `tuple[A, A, ...]` (not empty), `tuple[A, B]` or `list[A]` allows, by what stands between
    its brackets."""
    items = [item.strip() for item in inner.split(",")]
    if any("[" in item or "]" in item for item in items):  # lists of lists and the like: by the class
        return "a list", lambda v: isinstance(v, (list, tuple))
    checks = [_allowed(item) for item in items if item != "..."]
    said = " and ".join(check[0] for check in checks if check)
    if items[-1] == "..." or len(items) == 1:
        least, one = len(checks) - 1, checks[0]
        return f"a list{' that is not empty' * least}, each {one[0] if one else 'a value'}", lambda v: (
            isinstance(v, (list, tuple)) and len(v) >= least and all(one is None or one[1](x) for x in v))  # fmt: skip
    return f"a list of {len(checks)}: {said}", lambda v: (
        isinstance(v, (list, tuple)) and len(v) == len(checks)
        and all(check is None or check[1](x) for check, x in zip(checks, v)))  # fmt: skip


def _literals(annotation: str) -> tuple[Any, ...]:
    """The values that a `Literal[...]` allows."""
    return tuple(ast.literal_eval(annotation.removeprefix("Literal")))
