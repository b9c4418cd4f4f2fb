"""Distributions of latents that can be sampled and whose density is known: many at once, one per class.

Each maps standard normal noise e (count, n, d) to z of the same shape and tells log |det dz/de| (count, n), so

    KL(q || N(0, I)) = E_e [ log q(z) - log N(z; 0, I) ] = E_e [ (|z|^2 - |e|^2) / 2 - log |det dz/de| ]

needs no pass in the other direction: the noise of a sample is known.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Distribution(Protocol):
    """What is optimised: tensors whose first dimension is the distribution."""

    parameters: list[Tensor]

    def __call__(self, e: Tensor) -> tuple[Tensor, Tensor]: ...


def divergence(e: Tensor, z: Tensor, log_det: Tensor) -> Tensor:
    """One sample of KL(q || N(0, I)) for each z: (count, n)."""
    return (z.square().sum(-1) - e.square().sum(-1)) / 2 - log_det


class Normal:
    """z = m + L e with a full lower triangular L, exp on its diagonal."""

    def __init__(self, count: int, d: int, rng: torch.Generator, where: torch.device):
        self.mean = torch.zeros(count, d, device=where, requires_grad=True)
        self.log_diagonal = torch.zeros(count, d, device=where, requires_grad=True)
        self.below = torch.zeros(count, d, d, device=where, requires_grad=True)
        self.parameters = [self.mean, self.log_diagonal, self.below]

    def __call__(self, e: Tensor) -> tuple[Tensor, Tensor]:
        factor = self.below.tril(-1) + torch.diag_embed(self.log_diagonal.exp())
        z = self.mean[:, None] + e @ factor.mT
        return z, self.log_diagonal.sum(1, keepdim=True).expand(e.shape[:2])


class Flow:
    """`steps` times: a gain and a shift per coordinate (log gain clamped to +-2), a fixed random order, and an
    additive coupling, in which a network of one hidden layer of the first half moves the second. At the start
    the identity but for the orders.
    """

    def __init__(
        self, count: int, d: int, rng: torch.Generator, where: torch.device, steps: int = 10, hidden: int = 100
    ):
        self.half, rest = d // 2, d - d // 2
        self.orders = [torch.randperm(d, generator=rng).to(where) for _ in range(steps)]
        self.parameters = []
        for _ in range(steps):
            first = torch.randn(count, self.half, hidden, generator=rng) / self.half**0.5
            for value in (torch.zeros(count, d), torch.zeros(count, d), first, torch.zeros(count, 1, hidden),
                          torch.zeros(count, hidden, rest)):  # fmt: skip
                self.parameters.append(value.to(where).requires_grad_(True))

    def __call__(self, e: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = e, e.new_zeros(e.shape[:2])
        for i, order in enumerate(self.orders):
            gain, shift, first, bias, second = self.parameters[5 * i : 5 * i + 5]
            gain = gain.clamp(-2, 2)
            z = (z * gain.exp()[:, None] + shift[:, None])[..., order]
            a, b = z[..., : self.half], z[..., self.half :]
            z = torch.cat([a, b + F.elu(a @ first + bias) @ second], -1)
            log_det = log_det + gain.sum(1, keepdim=True)
        return z, log_det
