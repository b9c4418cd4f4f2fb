"""Tensors as integers of few bits, and as the bytes that carry them.

A quantiser makes `bits` of every value and a few float32 scales beside them; `pack` lays values of any width from
1 to 16 bits side by side. Rounding is to the nearest value, or up or down at random so that the mean is right.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

TINY = 1e-30


def pack(values: np.ndarray, bits: int) -> bytes:
    """Unsigned integers below 2^bits as a bit string, lowest bit first.

    >>> pack(np.array([1, 0, 3, 2]), 2).hex(), unpack(pack(np.array([1, 0, 3, 2]), 2), 4, 2).tolist()
    ('b1', [1, 0, 3, 2])
    """
    table = (values.astype(np.uint32)[:, None] >> np.arange(bits, dtype=np.uint32)) & 1
    return np.packbits(table.astype(np.uint8), bitorder="little").tobytes()


def unpack(raw: bytes, count: int, bits: int) -> np.ndarray:
    """What `pack` was given: int64 (count,)."""
    table = np.unpackbits(np.frombuffer(raw, np.uint8), count=count * bits, bitorder="little").reshape(count, bits)
    return (table.astype(np.int64) << np.arange(bits)).sum(1)


def packed_size(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def rounded(x: Tensor, rng: torch.Generator | None) -> Tensor:
    """To the nearest integer, or with a generator to one of the two next ones, right on average."""
    if rng is None:
        return x.round()
    return (x + torch.rand(x.shape, generator=rng).to(x)).floor()


def affine(x: Tensor, bits: int, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """x: (rows, n) -> values in [0, 2^bits), scales (rows, 2): step and smallest value. x ~ step * q + smallest."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    q = rounded((x - low) / step.clamp_min(TINY), rng).clamp(0, 2**bits - 1)
    return q, torch.cat([step, low], dim=1)


def affine_back(q: Tensor, scales: Tensor) -> Tensor:
    return q * scales[:, :1] + scales[:, 1:]


def symmetric(x: Tensor, bits: int, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """x: (rows, n) -> values in [0, 2^bits) around 2^(bits - 1), one step per row.

    At one bit: the sign, and the mean magnitude as the step.
    """
    if bits == 1:
        return (x > 0).to(x), x.abs().mean(1)
    top = 2 ** (bits - 1) - 1
    step = x.abs().amax(1) / top
    q = rounded(x / step.clamp_min(TINY)[:, None], rng).clamp(-top, top)
    return q + 2 ** (bits - 1), step


def symmetric_back(q: Tensor, steps: Tensor, bits: int) -> Tensor:
    centred = 2 * q - 1 if bits == 1 else q - 2 ** (bits - 1)
    return centred * steps[:, None]


def clipped(x: Tensor, outliers: float) -> Tensor:
    """x with its share `outliers` of largest magnitudes pulled to the rest's largest."""
    if not outliers:
        return x
    bound = x.abs().flatten().kthvalue(max(1, x.numel() - int(outliers * x.numel()))).values
    return x.clamp(-bound, bound)
