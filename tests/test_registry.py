"""What the registry reads from source texts is what importing them gives."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping
from typing import Literal, get_args, get_origin

import pytest

from inversionbench.core import attack as base
from inversionbench.core import registry
from inversionbench.core.errors import UserError

CLASSES = ("attack", "defense", "dataset", "prior")
EVERY = [(kind, name) for kind in CLASSES for name in registry.methods(kind)]
# class attributes that the workflow reads before anything is imported
PLANNED = ("id", "level", "prior", "control", "control_without_defense", "hooks", "inputs", "federated", "layered",
           "keeps_labels", "post_processing", "target_aware")


def annotation(text):
    """An annotation in one spelling, with the shared types of attacks written out."""
    shared = {name: t for name, t in vars(base).items() if get_origin(t) is Literal}
    parts = ast.unparse(ast.parse(text)).split(" | ")
    return " | ".join(f"Literal{list(get_args(shared[p]))}" if p in shared else p for p in parts)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_fields_and_defaults(kind, name):
    described, cls = registry.describe(kind, name), registry.get(kind, name)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    real = {}
    for field in dataclasses.fields(cls):
        given = field.default is not dataclasses.MISSING
        assert field.default_factory is dataclasses.MISSING, f"{field.name}: the default is no literal"
        real[field.name] = field.default if given else registry.REQUIRED
    assert described.fields == real
    assert described.types == {f.name: annotation(f.type) for f in dataclasses.fields(cls)}


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_class_attributes(kind, name):
    described, cls = registry.describe(kind, name), registry.get(kind, name)
    for attribute, value in described.attributes.items():
        found = getattr(cls, attribute)
        if isinstance(found, property):  # a chain answers for its stages; nothing is planned by it
            assert attribute not in PLANNED, attribute
        elif isinstance(value, dict) and not isinstance(found, Mapping):  # a data set's card
            assert {name: getattr(found, name) for name in value} == value
            assert "modality" in value
        else:
            assert found == value, attribute
    for attribute in PLANNED:
        if hasattr(cls, attribute):
            assert attribute in described.attributes, f"{attribute} must be a literal"


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_method_is_named_by_its_file_and_carries_its_card(kind, name):
    described = registry.describe(kind, name)
    assert registry.get(kind, name).id == name == described.path.stem
    assert described.doc.strip()


@pytest.mark.parametrize(("kind", "name"), [e for e in EVERY if e[0] in ("attack", "defense", "prior")])
def test_defaults_make_an_instance(kind, name):
    """And its repr makes it again: results can be traced to parameters."""
    described, cls = registry.describe(kind, name), registry.get(kind, name)
    if registry.REQUIRED in described.fields.values():
        pytest.skip("has parameters without a default")
    one = cls()
    assert eval(repr(one), {cls.__name__: cls}) == one


@pytest.mark.parametrize("kind", registry.PATTERNS)
def test_unknown_names_get_the_nearest(kind):
    for name in registry.methods(kind):
        with pytest.raises(UserError, match=f"unknown {kind} '{name}_'") as error:
            registry.describe(kind, f"{name}_")
        assert f"did you mean '{name}'" in str(error.value)


def test_metrics_are_functions():
    for name in registry.methods("metric"):
        assert callable(registry.get("metric", name))


def method(tmp_path, monkeypatch, text, **more):
    """The registry's view of a small package that holds one attack file (and further files)."""
    root = tmp_path / "inversionbench"
    for path, source in {"tracks/toy/attacks/probe.py": text, **more}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(source)
    monkeypatch.setattr(registry, "PACKAGE", root)
    registry.methods.cache_clear(), registry.module_path.cache_clear()
    try:
        return registry.describe("attack", "probe")
    finally:
        registry.methods.cache_clear(), registry.module_path.cache_clear()


def test_inherited_fields_and_attributes(tmp_path, monkeypatch):
    root = (
        "class Base:\n    id: ClassVar[str]\n    steps: int = 5\n    rate: float = 0.1\n"
        "    control = False\n    level = 'WB'\n"
    )
    text = (
        "from inversionbench.core.attack import Base as Root\n"
        "class _Half(Root):\n    rate: float = 0.2\n    level = ('LO', 'BB-S')\n"
        "class Probe(_Half):\n    id = 'probe'\n    names: tuple[str, ...] = ('a', 'b')\n    control = not True\n"
    )
    found = method(tmp_path, monkeypatch, text, **{"core/attack.py": root})
    assert found.fields == {"steps": 5, "rate": 0.2, "names": ("a", "b")}
    assert found.attributes == {"id": "probe", "level": ("LO", "BB-S")}  # `not True` is no literal
    assert found.class_name == "Probe"


def test_parameters_are_checked(tmp_path, monkeypatch):
    text = "class Probe:\n    id = 'probe'\n    steps: int\n    rate: float | None = None\n    on: bool = True\n"
    found = method(tmp_path, monkeypatch, text)
    assert found.fields["steps"] is registry.REQUIRED
    registry.check_parameters(found, {"steps": 3, "rate": 1}, "attacks.probe")
    registry.check_parameters(found, {"steps": 3, "rate": None, "on": False}, "attacks.probe")
    for bad, message in [
        ({"steps": 3, "raet": 1}, "did you mean 'rate'"),
        ({}, "needs steps"),
        ({"steps": 3.5}, r"attacks\.probe\.steps: expected a whole number, got 3\.5"),
        ({"steps": True}, "expected a whole number"),
        ({"steps": 3, "on": 1}, "expected true or false"),
        ({"steps": 3, "rate": "fast"}, "expected a number or nothing"),
    ]:
        with pytest.raises(UserError, match=message):
            registry.check_parameters(found, bad, "attacks.probe")


def test_values_named_by_literals_are_the_only_ones(tmp_path, monkeypatch):
    root = "from typing import Literal\nRule = Literal['sum', 'bias']\n"
    text = (
        "class Probe:\n    id = 'probe'\n    rule: Rule | Literal['none'] = 'sum'\n    size: Literal[1, 2] = 1\n"
        "    free: str | None = None\n"
    )
    found = method(tmp_path, monkeypatch, text, **{"core/attack.py": root})
    registry.check_parameters(found, {"rule": "none", "size": 2, "free": "anything"}, "attacks.probe")
    for bad, message in [
        ({"rule": "sums"}, r"attacks\.probe\.rule: got 'sums': did you mean 'sum'\? Allowed: bias, none, sum"),
        ({"size": 3}, "Allowed: 1, 2"),
        ({"rule": ["sum"]}, "rule: got"),
    ]:
        with pytest.raises(UserError, match=message):
            registry.check_parameters(found, bad, "attacks.probe")


def test_a_file_without_its_class_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"probe\.py: no public class"):
        method(tmp_path, monkeypatch, "class Other:\n    id = 'other'\n")


def test_two_files_of_one_name_are_an_error(tmp_path, monkeypatch):
    text = "class Probe:\n    id = 'probe'\n"
    with pytest.raises(UserError, match="two attacks are named 'probe'"):
        method(tmp_path, monkeypatch, text, **{"tracks/other/attacks/probe.py": text})


@pytest.mark.parametrize(("kind", "name"), [e for e in EVERY if e[0] != "metric"])
def test_every_number_has_a_range(kind, name):
    """A parameter without one would take a negative rate or no step at all; these two take any number."""
    types = registry.describe(kind, name).types
    plain = {f for f, text in types.items() if re.search(r"\b(int|float)\b", text) and "Literal" not in text}
    assert plain <= {"log_variance", "effect"}


def test_an_unknown_class_attribute_is_refused(tmp_path, monkeypatch):
    root = "class Base:\n    control: ClassVar[bool] = False\n"
    text = ("from inversionbench.core.attack import Base\n"
            "class Probe(Base):\n    id = 'probe'\n    contrl = True\n")  # fmt: skip
    with pytest.raises(UserError, match="Probe has no class attribute 'contrl': did you mean 'control'"):
        method(tmp_path, monkeypatch, text, **{"core/attack.py": root.replace("control", "id: str\n    control")})
