"""Image priors per trial. x: (trials, batch, c, h, w) -> (trials,)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class TotalVariation(torch.autograd.Function):
    """Anisotropic total variation with means: mean |dx| + mean |dy|, each over one trial."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        across, down = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
        sizes = across[0].numel(), down[0].numel()
        ctx.save_for_backward(across.sign().mul_(1 / sizes[0]), down.sign().mul_(1 / sizes[1]))
        return across.abs().flatten(1).mean(1) + down.abs().flatten(1).mean(1)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:  # type: ignore[override]
        across, down = ctx.saved_tensors
        out = across.new_zeros(*across.shape[:-1], across.shape[-1] + 1)
        out[..., 1:] = across
        out[..., :-1] -= across
        out[..., 1:, :] += down
        out[..., :-1, :] -= down
        return out.mul_(d.view(-1, *[1] * (out.ndim - 1)))


def total_variation(x: Tensor) -> Tensor:
    """mean |dx| + mean |dy| per trial: weights of the literature that use sums differ by about h * w."""
    return TotalVariation.apply(x)


def norm(x: Tensor) -> Tensor:
    """Mean square per trial."""
    return x.square().flatten(1).mean(1)
