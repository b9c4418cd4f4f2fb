"""Rows of a table as a federated client feeds them, and as an attacker writes them down.

encoded   x: (..., width), as a data set stores it: a categorical column of V values is V zeros and ones, a
          numeric column one standardised number
fed       z = (x - mean) / std, every encoded column standardised by the public rows, the ones and zeros too
decoded   rows: (..., columns): the position of a category among its values, or a number in its own unit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.errors import UserError
from inversionbench.models.base import Trace
from inversionbench.models.tabular import MLP

ROUNDING = 1e-3  # of the unit: how far float32 may move a whole number


@dataclass(frozen=True)
class Schema:
    """What everybody knows of a table: columns, values, bounds and the standardisation, from public rows.

    blocks: (start, stop) of each column in x. categorical, integer: per column. mean, std: (width,), of the
    encoded columns; std is 1 where a column never changes. centre, unit, low, high: (columns,), a number is
    centre + unit * x and lies in [low, high]; categories have centre 0, unit 1, low 0 and high V - 1.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    blocks: tuple[tuple[int, int], ...]
    categorical: np.ndarray
    integer: np.ndarray
    mean: Tensor
    std: Tensor
    centre: Tensor
    unit: Tensor
    low: Tensor
    high: Tensor

    @property
    def width(self) -> int:
        return len(self.mean)

    @cached_property
    def member(self) -> Tensor:
        """float (width, width): 1 where two encoded columns belong to one categorical column."""
        out = torch.zeros(self.width, self.width)
        for start, stop in self._slices(True):
            out[start:stop, start:stop] = 1
        return out

    @cached_property
    def places(self) -> Tensor:
        """int64: the encoded places of the numeric columns, in order."""
        return torch.tensor([start for start, _ in self._slices(False)], dtype=torch.int64)

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """(low, high) of the numeric columns as they are fed, each (numeric columns,)."""
        numbers = torch.as_tensor(~self.categorical)
        return tuple(
            ((edge - self.centre) / self.unit)[numbers].float().sub(self.mean[self.places]).div(self.std[self.places])
            for edge in (self.low, self.high)
        )  # type: ignore[return-value]

    def feed(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def decode(self, x: Tensor) -> Tensor:
        """Encoded rows, or scores of categories in their places: float64 (..., columns), clipped and rounded."""
        out = torch.empty(*x.shape[:-1], len(self.names), dtype=torch.float64)
        for i, (start, stop) in enumerate(self.blocks):
            if self.categorical[i]:
                out[..., i] = x[..., start:stop].argmax(-1).double()
                continue
            number = (self.centre[i] + self.unit[i] * x[..., start].double()).clamp(self.low[i], self.high[i])
            out[..., i] = number.round() if self.integer[i] else number
        return out

    def encode(self, rows: Tensor) -> Tensor:
        """The opposite of `decode`: float32 (..., width)."""
        out = torch.zeros(*rows.shape[:-1], self.width)
        for i, (start, stop) in enumerate(self.blocks):
            if self.categorical[i]:
                out[..., start:stop] = nn.functional.one_hot(rows[..., i].long(), stop - start).float()
            else:
                out[..., start] = ((rows[..., i] - self.centre[i]) / self.unit[i]).float()
        return out

    def _slices(self, categorical: bool) -> list[tuple[int, int]]:
        return [block for block, kind in zip(self.blocks, self.categorical) if kind == categorical]


def read_schema(meta: Mapping[str, Any], public: np.ndarray) -> Schema:
    """The schema of a table from its description and its public rows x (n, width)."""
    if "columns" not in meta:
        raise UserError(f"data set '{meta.get('name')}' is no table: its description lists no columns")
    columns = meta["columns"]
    categorical = np.array([c["kind"] == "categorical" for c in columns])
    x = torch.from_numpy(np.array(public, dtype=np.float32))
    std, mean = torch.std_mean(x.double(), dim=0, correction=0)
    numbers = {
        name: torch.tensor([default if c[key] is None else c[key] for c in columns], dtype=torch.float64)
        for name, key, default in (("centre", "mean", 0.0), ("unit", "std", 1.0), ("low", "low", 0.0))
    }
    high = torch.tensor([c["high"] if c["high"] is not None else len(c["values"]) - 1.0 for c in columns])
    whole = []
    for c in columns:
        raw = x[:, c["slice"][0]].double() * (c["std"] or 1.0) + (c["mean"] or 0.0)
        whole.append(bool((raw - raw.round()).abs().max() < ROUNDING))
    return Schema(
        names=tuple(c["name"] for c in columns),
        values=tuple(tuple(c["values"]) for c in columns),
        blocks=tuple((c["slice"][0], c["slice"][1]) for c in columns),
        categorical=categorical,
        integer=np.array(whole),
        mean=mean.float(),
        std=torch.where(std > 0, std, torch.ones_like(std)).float(),
        high=high.double(),
        **numbers,
    )


class RowNet(nn.Module):
    """A fully connected network that standardises its encoded rows. x: (n, width) -> logits (n, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, net: MLP):
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        self.net = net

    def trace(self, x: Tensor) -> Trace:
        return self.net.trace((x - self.mean) / self.std)

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits

    def stack(self) -> list[tuple[str, nn.Linear]]:
        """The linear layers from the input to the logits, with their names among the parameters."""
        layers = [(f"net.layers.{i}", layer) for i, layer in enumerate(self.net.layers)]
        return [*layers, ("net.fc", self.net.fc)]  # type: ignore[list-item]
