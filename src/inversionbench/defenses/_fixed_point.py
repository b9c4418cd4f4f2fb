"""Updates as integers: what masks, shares and ciphertexts can add exactly.

v in [-clip, clip] becomes round(v 2^f); the sum of N of them, divided by N 2^f, is the mean up to 2^(-f-1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def encode(update: Mapping[str, Tensor], weight: float, clip: float, bits: int) -> tuple[np.ndarray, int]:
    """(int64 (d,), number of clipped values) of weight times the update, all tensors in one vector."""
    flat = np.concatenate([t.detach().double().flatten().cpu().numpy() for t in update.values()]) * weight
    clipped = int((np.abs(flat) > clip).sum())
    return np.rint(np.clip(flat, -clip, clip) * 2.0**bits).astype(np.int64), clipped


def decode(values: np.ndarray, like: Mapping[str, Tensor], bits: int, count: float = 1.0) -> dict[str, Tensor]:
    """An update with the names, shapes and types of `like` from integers (d,), divided by count and 2^bits."""
    import torch

    flat = torch.from_numpy(values.astype(np.float64) / (count * 2.0**bits))
    pieces = flat.split([t.numel() for t in like.values()])
    return {name: piece.view_as(t).to(t) for (name, t), piece in zip(like.items(), pieces)}


def centred(values: np.ndarray) -> np.ndarray:
    """Residues modulo 2^32 (uint32) as int64 in [-2^31, 2^31)."""
    return values.astype(np.uint32).view(np.int32).astype(np.int64)


def shares_of(weights: Sequence[float]) -> list[float]:
    """Each client's weight relative to the mean weight: what it multiplies its own update with."""
    mean = sum(weights) / len(weights)
    return [w / mean for w in weights]


def sessions(count: int, size: int) -> list[list[int]]:
    """Clients 0 .. count - 1 in consecutive groups of `size`; what is left over joins the last group.

    >>> sessions(7, 3)
    [[0, 1, 2], [3, 4, 5, 6]]
    """
    starts = list(range(0, max(1, count // size) * size, size))
    ends = [*starts[1:], count]
    return [list(range(a, b)) for a, b in zip(starts, ends)]
