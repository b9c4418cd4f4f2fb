"""Entries of a tensor by the rank of their magnitude, and what a sparse tensor costs to send."""

from __future__ import annotations

import torch
from torch import Tensor


def band(v: Tensor, skip: int, keep: int) -> Tensor:
    """Mask (bool, shape of v) of the `keep` entries that follow the `skip` largest in magnitude.

    >>> band(torch.tensor([[0.1, -3.0], [2.0, 0.5]]), 1, 2)
    tensor([[False, False],
            [ True,  True]])
    """
    order = v.abs().flatten().topk(min(v.numel(), skip + keep)).indices[skip:]
    mask = torch.zeros(v.numel(), dtype=torch.bool, device=v.device)
    mask[order] = True
    return mask.view_as(v)


def sparse_bytes(sent: int, entries: int) -> int:
    """Bytes of `sent` values of 4 bytes, with the cheaper of 4-byte indices and a bitmap of all `entries`.

    >>> sparse_bytes(40, 400), sparse_bytes(2, 400)
    (210, 16)
    """
    return 4 * sent + min(4 * sent, -(-entries // 8))
