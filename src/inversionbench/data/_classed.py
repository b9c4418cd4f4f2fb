"""Image sets with an official training and test set and a handful of classes: one split for all of them.

Options that every such class has (see `mnist` for their meaning): resolution, private_classes, protocol,
evaluation_share, and the largest number of samples of each part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inversionbench.core.errors import UserError, suggest
from inversionbench.data import _split, _stream
from inversionbench.data.base import PARTS

if TYPE_CHECKING:
    from inversionbench.data._writer import Writer

PROTOCOLS = ("classes", "samples")


@dataclass(frozen=True)
class Plan:
    """Which sample of the source goes where.

    parts: part -> sample numbers (test samples count on after the training samples). sides: name -> array
    over all samples: `y` (the class of the task, -1 for public classes) and `label` (the class in the
    source). names: of the classes of the task.
    """

    parts: dict[str, np.ndarray]
    sides: dict[str, np.ndarray]
    names: list[str]


def private_classes(source: Any, count: int) -> tuple[int, ...]:
    """The private classes that `protocol` and `private_classes` ask for; all of them with "samples"."""
    where = f"data.{source.id}"
    if source.protocol not in PROTOCOLS:
        raise UserError(f"{where}.protocol: unknown '{source.protocol}': {suggest(source.protocol, PROTOCOLS)}")
    if source.protocol == "samples":
        return tuple(range(count))
    chosen = _split.classes(f"{where}.private_classes", source.private_classes, count)
    if len(chosen) == count:
        raise UserError(f"{where}.private_classes: no class is left for public; use protocol 'samples'")
    return chosen


def plan(
    source: Any,
    train: np.ndarray,
    test: np.ndarray,
    names: Sequence[str],
    private: Sequence[int],
    rng: np.random.Generator,
    without: Sequence[int] = (),
) -> Plan:
    """Split into parts; train, test: labels (n,) in 0..len(names)-1.

    private: the private classes in the order of their new labels. without: classes kept out of public.
    """
    _stream.size(source.id, source.resolution)
    public = [c for c in range(len(names)) if c not in private and c not in without]
    parts = _split.classed(train, test, private, public, rng, source.evaluation_share)
    label = np.concatenate([train, test]).astype(np.int64)
    sides = {"y": _split.renumber(label, private), "label": label}
    return Plan(limited(source, parts), sides, [names[c] for c in private])


def limited(source: Any, parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """At most as many samples of each part as the options of the part's name say (0: all)."""
    most = {part: getattr(source, part) for part in PARTS}
    for part, count in most.items():
        if count < 0:
            raise UserError(f"data.{source.id}.{part}: expected a number of samples, or 0 for all; got {count}")
    return _split.limit(parts, **most)


def write(out: Writer, plan: Plan, pick: Callable[[np.ndarray], np.ndarray], **facts: Any) -> None:
    """Write all parts; pick: sample numbers -> images uint8 (n, channels, height, width)."""
    out.drop_shared()  # published sets hold a few exact copies
    for part in PARTS:
        rows = plan.parts[part]
        sides = {name: value[rows] for name, value in plan.sides.items()}
        out.put(part, pick(rows), sides.pop("y"), index=rows.astype(np.int64), **sides)
    about(out, plan, **facts)


def about(out: Writer, plan: Plan, **facts: Any) -> None:
    """What `dataset.json` says of the split."""
    out.meta(classes=len(plan.names), class_names=plan.names, **facts)
