"""Balls to which a search is held."""

from __future__ import annotations

import torch
from torch import Tensor


def l1_ball(v: Tensor, radius: float) -> Tensor:
    """Each row of v (n, d) moved to the nearest point of the l1 ball of that radius (Duchi et al., ICML 2008).

    >>> (l1_ball(torch.tensor([[3.0, -1.0], [0.5, 0.25]]), 2.0) + 0.0).tolist()
    [[2.0, 0.0], [0.5, 0.25]]
    """
    size = v.abs()
    ordered = size.sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - radius
    rank = torch.arange(1, v.shape[1] + 1, device=v.device)
    last = (ordered * rank > excess).sum(1, keepdim=True).clamp_min(1)
    theta = excess.gather(1, last - 1) / last
    moved = v.sign() * (size - theta).clamp_min(0)
    return torch.where(size.sum(1, keepdim=True) <= radius, v, moved)
