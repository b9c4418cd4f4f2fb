"""Total-variation denoising as an exact step (Chambolle 2004), not as a term of an objective."""

from __future__ import annotations

import torch
from torch import Tensor

TAU = 0.12  # dual step; at most 1/8 for two dimensions


def gradient(u: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences down and across, 0 in the last row and column. u: (..., h, w)."""
    down, across = torch.zeros_like(u), torch.zeros_like(u)
    down[..., :-1, :] = u[..., 1:, :] - u[..., :-1, :]
    across[..., :-1] = u[..., 1:] - u[..., :-1]
    return down, across


def divergence(down: Tensor, across: Tensor) -> Tensor:
    """The negative adjoint of `gradient`."""
    out = torch.zeros_like(down)
    out[..., :-1, :] += down[..., :-1, :]
    out[..., 1:, :] -= down[..., :-1, :]
    out[..., :-1] += across[..., :-1]
    out[..., 1:] -= across[..., :-1]
    return out


def isotropic_variation(u: Tensor) -> Tensor:
    """sum over pixels of |gradient|, per image: (..., h, w) -> (...)."""
    down, across = gradient(u)
    return torch.hypot(down, across).sum((-2, -1))


def denoise(x: Tensor, strength: float, iterations: int) -> Tensor:
    """argmin_v 0.5 ||v - x||^2 + strength * TV(v) for every channel of every image, x (..., h, w).

    The dual fixed-point iteration p <- (p + tau q) / (1 + tau |q|), q = gradient(div p - x / strength), from
    p = 0; v = x - strength * div p. strength 0 is the identity.
    """
    if strength <= 0:
        return x.clone()
    down, across = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(iterations):
        q_down, q_across = gradient(divergence(down, across) - x / strength)
        scale = 1 + TAU * torch.hypot(q_down, q_across)
        down, across = (down + TAU * q_down) / scale, (across + TAU * q_across) / scale
    return x - strength * divergence(down, across)
