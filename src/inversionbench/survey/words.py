"""How things are named, measured and written for people: one source for tables, figures and report.

What a track is called and reports (title, headline, directions, utility) is said by the track itself
(`tracks/<id>/track.py`), levels by `core.levels`; the other words and digits stand in `words.yaml` beside this file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from inversionbench.core import catalogue, registry
from inversionbench.core.errors import UserError
from inversionbench.core.levels import LEVELS
from inversionbench.core.quantity import Quantity
from inversionbench.tracks import get_track, track_names


@dataclass(frozen=True)
class Track:
    """One track for people. `directions`: metric -> "higher" or "lower" means more leakage; `nearest`: which
    image its galleries show beside a reconstruction."""

    id: str
    title: str
    about: str = ""
    headline: str | None = None
    utility: str = "accuracy"
    directions: Mapping[str, str] = field(default_factory=dict)
    nearest: str = "nearest"
    order: int = 1000
    controls: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unpriced: str = ""
    compared: str = ""


@cache
def words() -> dict[str, Any]:
    """The content of words.yaml."""
    return yaml.safe_load((Path(__file__).parent / "words.yaml").read_text())


def place(of: str) -> int:
    """Where a track stands in tables; unknown ones last."""
    return track(of).order


def natural(name: str) -> list[tuple[str, int]]:
    """A key that sorts names with numbers by the numbers.

    >>> sorted(["b16", "b2", "a"], key=natural)
    ['a', 'b2', 'b16']
    """
    parts = [*re.split(r"(\d+)", name), "0"]
    return [(text, int(number)) for text, number in zip(parts[::2], parts[1::2])]


@cache
def track(name: str) -> Track:
    """A track's own facts with our words; a record of a track that this version lacks still gets words."""
    try:
        known = get_track(name)
    except UserError:
        return Track(name, _plain(name))
    return Track(
        name, known.title, " ".join(known.about.split()), known.headline, known.utility,
        {name: metric(name).direction for name in known.metrics},
        known.nearest, known.order, known.controls, known.unpriced, known.compared,
    )  # fmt: skip


def metric(name: str, of: str = "", kind: str = "metrics") -> Quantity:
    """A metric (of a track), or with kind "utility" a utility.

    `lpips_like[resnet]`, `accuracy_nonmembers` and `exact_match[B=08]` are looked up as what they vary, and keep
    the variant in the label.

    >>> metric("lpips_like[resnet]").label, metric("accuracy_nonmembers").title
    ('LPIPS-like[resnet]', 'accuracy, non-members (%)')
    >>> metric("exact_match[B=08]").label
    'exact match, batch of 8'
    """
    base, bracket, rest = name.partition("[")
    base, others, _ = base.partition("_nonmembers")
    if kind == "metrics":
        known = registry.quantities().get(base, {})
        said = {name: value for name, value in known.items() if name in registry.QUANTITY and name != "id"}
    else:
        said = dict(words()[kind].get(base) or {})
    variant = f", batch of {int(rest[2:-1])}" if rest.startswith("B=") else bracket + rest
    label = said.pop("label", _plain(base)) + (", non-members" if others else "") + variant
    return Quantity(name, label, **said)


def headline(of: str, present: Collection[str]) -> str:
    """The metric that a scenario's table sorts by: the track's, or the first of the track's that is there.

    A track may ask two questions with metrics of their own; `present` are those of the scenario's records.
    """
    own = track(of).headline
    if own in present or not present:
        return own or ""
    return next((m for m in track(of).directions if m in present), min(present))


def label(kind: str, name: str) -> str:
    """Label of a control, level, status or verdict."""
    if kind == "levels":
        return LEVELS[name].label if name in LEVELS else _plain(name)
    said = _said(kind, name)
    return said["label"] if isinstance(said, dict) else said or _plain(name)


def method(kind: str, entry: str, of: str = "") -> str:
    """The survey's name of an attack or defense; an entry that sets other parameters keeps what it adds.

    >>> method("attack", "dlg"), method("attack", "gmi_aware", "gmi"), method("attack", "wrong_gradient")
    ('DLG', 'GMI (aware)', 'wrong gradient')
    """
    of = of or catalogue.method_of(kind, entry)
    rest = "" if entry == of else entry.removeprefix(of).strip("_").replace("_", " ")
    return catalogue.name(kind, of) + (f" ({rest})" if rest else "")


def note(kind: str, name: str) -> str:
    """One sentence about a control or status; empty where nothing is known."""
    said = _said(kind, name)
    return said.get("note", "") if isinstance(said, dict) else ""


def _said(kind: str, name: str) -> Any:
    """What words.yaml, or of a control a track, says of a name."""
    if kind == "controls" and name not in words()["controls"]:
        return next((found[name] for t in track_names() if name in (found := get_track(t).controls)), None)
    return words()[kind].get(name)


def baseline_kind(control: str) -> str:
    """Which end of the scale a control marks: "guess", "ceiling", or "" for neither."""
    said = _said("controls", control)
    return said.get("reach", "") if isinstance(said, dict) else ""


def arrow(direction: str) -> str:
    """Which way means more leakage, for people."""
    return {"higher": "higher leaks more", "lower": "lower leaks more"}.get(direction, "direction unknown")


def better(a: float, b: float, direction: str) -> bool:
    """Whether `a` leaks more than `b`; never where the direction is not known."""
    return {"higher": a > b, "lower": a < b}.get(direction, False)


def _plain(name: str) -> str:
    return name.replace("_", " ")
