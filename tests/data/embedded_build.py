"""Build an embedded data set in memory, the way `prepare` does it on disk."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from inversionbench.data.base import PARTS, Dataset, DatasetSource, Part


class Memory:
    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.values: dict[str, Any] = {}

    def put(self, part: str, x: np.ndarray, y: np.ndarray, **extra: np.ndarray) -> None:
        assert part in PARTS
        assert part not in self.parts
        assert y.dtype == np.int64
        assert all(len(a) == len(x) for a in (y, *extra.values()))
        self.parts[part] = Part(x, y, extra)

    def drop_shared(self) -> None:
        pass

    def meta(self, classes: int, **values: Any) -> None:
        self.values = json.loads(json.dumps({"classes": classes, **values}, allow_nan=False))


def build(source: DatasetSource, seed: int = 0) -> Dataset:
    out = Memory()
    source.build(None, out, np.random.default_rng(seed))
    shape = out.parts["private"].x.shape[1:]
    parts = (out.parts[name] for name in PARTS)
    return Dataset(source.id, out.values["classes"], shape, out.values, *parts)  # type: ignore[attr-defined]


def arrays(data: Dataset) -> list[np.ndarray]:
    """All arrays of a data set, in a fixed order."""
    parts = [getattr(data, name) for name in PARTS]
    return [a for p in parts for a in (p.x, p.y, *(p.extra[k] for k in sorted(p.extra)))]


def same(a: Dataset, b: Dataset) -> bool:
    """Whether two data sets hold the same bytes."""
    pairs = zip(arrays(a), arrays(b), strict=True)
    return a.meta == b.meta and all(p.dtype == q.dtype and p.tobytes() == q.tobytes() for p, q in pairs)
