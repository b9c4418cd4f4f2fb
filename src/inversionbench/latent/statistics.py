"""Batch statistics at the batch normalisation layers of a white-box target, against those it stores.

R_BN = sum over layers l of s_l (|mu_l(x) - mu^_l|_2 + |var_l(x) - var^_l|_2), mean and biased variance of the
*input* of layer l over batch and positions, per channel; mu^, var^ are the layer's running statistics. The
norms are not squared. Nothing is estimated from data: where the statistics cannot be read, access is denied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.core.errors import AccessDenied

BatchNorm = nn.modules.batchnorm._BatchNorm


def norms_of(target: nn.Module) -> list[Any]:
    """The batch normalisation layers whose running statistics can be read, in the order of registration."""
    return [m for m in target.modules() if isinstance(m, BatchNorm) and m.running_mean is not None]


class NormStatistics:
    """Watches the normalisation layers of a target during its forward passes.

    first: the factor s_1 of the layer that a pass meets first. Raises `AccessDenied` where there is no
    running statistic to read: the target has no such layer, or the access level hides them.
    """

    def __init__(self, target: nn.Module, first: float = 1.0):
        self.norms = norms_of(target)
        if not self.norms:
            raise AccessDenied(
                "no running statistics of batch normalisation can be read here: the target has none, or the "
                "level hides them; set the weight of the statistics to 0 for the variant without them"
            )
        self.first = first
        self.seen: list[Tensor] = []
        self.handles = [norm.register_forward_pre_hook(self._look) for norm in self.norms]

    def take(self) -> Tensor:
        """R_BN of the pass since the last call, a scalar that carries gradients."""
        seen, self.seen = self.seen, []
        return torch.stack([*[self.first * d for d in seen[:1]], *seen[1:]]).sum()

    def close(self) -> None:
        """Stop watching."""
        for handle in self.handles:
            handle.remove()

    def _look(self, norm: Any, inputs: tuple[Tensor, ...]) -> None:
        (h,) = inputs
        over = [0, *range(2, h.dim())]
        mean, variance = h.mean(over), h.var(over, unbiased=False)
        gap = torch.linalg.vector_norm(mean - norm.running_mean)
        self.seen.append(gap + torch.linalg.vector_norm(variance - norm.running_var))
