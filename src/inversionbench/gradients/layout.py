"""Updates as flat vectors: names, shapes, and the order of values inside each tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

Order = tuple[int, ...] | None


@dataclass(frozen=True)
class Layout:
    """How the parameters of a model lie in a vector of length `size`, in `named_parameters` order.

    orders: per tensor, the axes in the order in which its values are written (None: as they are). A simulator
    chooses them to suit its kernels; whoever compares vectors uses `flatten` of the same layout.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    orders: tuple[Order, ...]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        ends = [0]
        for shape in self.shapes:
            ends.append(ends[-1] + torch.Size(shape).numel())
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @property
    def size(self) -> int:
        return self.slices[-1].stop

    def where(self, name: str) -> slice:
        """The place of one tensor."""
        return self.slices[self.names.index(name)]

    def flatten(self, update: Mapping[str, Tensor]) -> Tensor:
        """name -> (n, *shape) to (n, size)."""
        parts = []
        for name, order in zip(self.names, self.orders):
            t = update[name]
            parts.append((t if order is None else t.permute(0, *(i + 1 for i in order))).flatten(1))
        return torch.cat(parts, dim=1)

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """(n, size) to name -> (n, *shape): the inverse of `flatten`."""
        out = {}
        for name, shape, order, place in zip(self.names, self.shapes, self.orders, self.slices):
            part = flat[:, place]
            if order is None:
                out[name] = part.reshape(-1, *shape)
                continue
            back = [order.index(i) + 1 for i in range(len(shape))]
            out[name] = part.reshape(-1, *(shape[i] for i in order)).permute(0, *back)
        return out


def layout_of(shapes: Mapping[str, Sequence[int]], orders: Sequence[Order] | None = None) -> Layout:
    """The layout of parameters with these shapes; values in their own order unless told otherwise."""
    names = tuple(shapes)
    return Layout(names, tuple(tuple(s) for s in shapes.values()), tuple(orders or [None] * len(names)))
