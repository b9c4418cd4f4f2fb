"""A layer that samples: the middle of a variational bottleneck.

Its noise is fresh at every pass, in training and at test time, and comes from a generator of its own; who needs
noise of another source calls `draw`. A copy of the layer continues its own sequence.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Sample(nn.Module):
    """(..., 2 k) -> (..., k): mean + scale * softplus(raw - offset) * noise, noise from N(0, 1).

    beta: weight of the divergence from N(0, 1) in the loss of a network with this layer, see `divergence`.
    scale: 0 takes the mean (for an attacker who leaves the noise out).
    """

    def __init__(self, beta: float, seed: int = 0, offset: float = 0.0):
        super().__init__()
        self.beta, self.scale, self.offset = beta, 1.0, offset
        self.rng = torch.Generator().manual_seed(seed)

    def forward(self, a: Tensor) -> Tensor:
        return self.draw(a, self.rng)

    def draw(self, a: Tensor, rng: torch.Generator) -> Tensor:
        mean, raw = a.chunk(2, dim=-1)
        return mean + F.softplus(raw - self.offset) * self.noise(mean, rng)

    def noise(self, like: Tensor, rng: torch.Generator) -> Tensor:
        return self.scale * torch.randn(like.shape, generator=rng).to(like)


class Bottleneck(nn.Module):
    """A last layer behind a bottleneck: features (n, width) -> 2 k -> sample -> logits (n, classes). In training it
    keeps what the last pass encoded, (n, 2 k), as `seen`."""

    def __init__(self, width: int, k: int, classes: int, sample: Sample):
        super().__init__()
        self.encode, self.sample, self.decode = nn.Linear(width, 2 * k), sample, nn.Linear(k, classes)
        self.seen: Tensor | None = None

    def forward(self, h: Tensor) -> Tensor:
        a = self.encode(h)
        self.seen = a if self.training else None
        return self.decode(self.sample(a))


def silence(model: nn.Module) -> int:
    """Leave the noise of every `Sample` of a network out, in place; how many there are."""
    layers = [m for m in model.modules() if isinstance(m, Sample)]
    for layer in layers:
        layer.scale = 0.0
    return len(layers)


def divergence(a: Tensor, offset: float = 0.0) -> Tensor:
    """KL(N(mean, std) || N(0, 1)) in bits, summed over the latent and averaged over the batch. a: (n, 2 k), mean
    and raw, std = softplus(raw - offset).

    >>> raw = math.log(math.e - 1)  # softplus(raw) = 1
    >>> float(divergence(torch.tensor([[0.0, raw]])).abs() < 1e-6), float(divergence(torch.tensor([[2.0, raw]])))
    (1.0, 2.8853900...)
    """
    mean, raw = a.chunk(2, dim=-1)
    std = F.softplus(raw - offset)
    return (mean.square() + std.square() - 1 - 2 * std.log()).sum(-1).mean() / (2 * math.log(2))
