"""Adam on trials: element-wise, so one optimiser serves all of them."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma and Ba 2015) in place on one tensor; with `signed`, fed with the sign of the gradient."""

    def __init__(
        self, x: Tensor, signed: bool = False, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ):
        self.x, self.signed, self.betas, self.eps = x, signed, betas, eps
        self.mean, self.square, self.count = torch.zeros_like(x), torch.zeros_like(x), 0

    @torch.no_grad()
    def step(self, gradient: Tensor, rate: float) -> None:
        g = gradient.sign() if self.signed else gradient
        self.count += 1
        b1, b2 = self.betas
        self.mean.lerp_(g, 1 - b1)
        self.square.mul_(b2).addcmul_(g, g, value=1 - b2)
        c1, c2 = 1 - b1**self.count, 1 - b2**self.count
        self.x.addcdiv_(self.mean, (self.square / c2).sqrt_().add_(self.eps), value=-rate / c1)
