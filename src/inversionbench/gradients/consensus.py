"""What several searches for the same images agree on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def shifted(x: Tensor, reach: int) -> Tensor:
    """All shifts of images (..., h, w) by up to `reach` pixels, edges repeated: ((2 reach + 1)^2, ..., h, w)."""
    h, w = x.shape[-2:]
    flat = F.pad(x.flatten(0, -4), [reach] * 4, mode="replicate")
    moves = range(2 * reach + 1)
    return torch.stack([flat[..., i : i + h, j : j + w].view(x.shape) for i in moves for j in moves])


def consensus(x: Tensor, reach: int = 0) -> Tensor:
    """The mean of candidates x (seeds, clients, batch, c, h, w) per image, (clients, batch, c, h, w).

    With `reach`, every candidate is first moved by the shift of up to that many pixels that brings it nearest
    to the plain mean. Candidates must hold the images of a batch in the same order.
    """
    mean = x.mean(0)
    if not reach:
        return mean
    moved = shifted(x, reach)
    which = (moved - mean).square().mean((-3, -2, -1)).argmin(dim=0)
    return torch.gather(moved, 0, which[None, ..., None, None, None].expand(1, *x.shape))[0].mean(0)
