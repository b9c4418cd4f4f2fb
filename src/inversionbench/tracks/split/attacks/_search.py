"""rMLE: an image whose features are those that were observed, with little total variation.

    x* = argmin_x |f(x) - h|^2 / |h|^2 + w * TV(x)      |.|^2, TV: means over features, over neighbouring pixels

He, Zhang, Lee (ACSAC 2019), eq. 3, with the anisotropic l1 total variation and the features' error relative to their
mean square, so that w means the same at every cut. Adam with cosine decay from grey with a little noise (max-pooling
and ReLU let a constant image stall), clamped to [0, 1] after each step. All images are one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

START, SPREAD = 0.5, 0.02  # mean and standard deviation of the first image


@dataclass(frozen=True)
class Search:
    """steps and highest rate of Adam."""

    steps: int
    rate: float

    def run(
        self, client: Callable[[Tensor], Tensor], h: Tensor, shape: tuple[int, ...], weight: Tensor,
        rng: torch.Generator,
    ) -> Tensor:
        """Images (n, *shape) in [0, 1] for features h (n, ...); weight: (n,) of the total variation of each."""
        x = (START + SPREAD * torch.randn(len(h), *shape, generator=rng)).to(h).requires_grad_()
        scale = h.square().mean().clamp_min(1e-12)
        adam = torch.optim.Adam([x], self.rate)
        for step in range(self.steps):
            adam.param_groups[0]["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            loss = ((client(x) - h).square().flatten(1).mean(1) / scale + weight * variation(x)).sum()
            x.grad = torch.autograd.grad(loss, x)[0]
            adam.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        return x.detach()

    def choose(
        self, client: Callable[[Tensor], Tensor], h: Tensor, images: Tensor, weights: Sequence[float],
        rng: torch.Generator,
    ) -> float:
        """The weight with the highest mean PSNR on public images (n, c, h, w) and what is sent of them, h (n, ...)."""
        n = len(images)
        each = torch.tensor(weights).repeat_interleave(n).to(h)
        found = self.run(client, h.repeat(len(weights), *[1] * (h.dim() - 1)), tuple(images.shape[1:]), each, rng)
        gaps = (found.unflatten(0, (len(weights), n)) - images.to(h)).square().flatten(2).mean(2)
        return weights[int(gaps.clamp_min(1e-6).log().mean(1).argmin())]


def variation(x: Tensor) -> Tensor:
    """(n, channels, height, width) -> (n,): mean absolute difference of neighbours, over both directions.

    >>> variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
    tensor([1.])
    """
    return x.diff(dim=2).abs().flatten(1).mean(1) + x.diff(dim=3).abs().flatten(1).mean(1)
