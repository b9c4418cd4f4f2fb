"""What a client that clips and adds noise makes of its gradient, and how likely an update is given images.

The client sends u = clip(g) + noise of a known kind and scale, so up to constants

    -log p(u | x) = |u - clip(g(x))|^2 / (2 s^2)        Gaussian noise of deviation s per entry
                  = |u - clip(g(x))|_1 / b              Laplace noise of scale b

over the entries that were sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from inversionbench.core.protocol import Protocol
from inversionbench.gradients.objectives import TINY
from inversionbench.gradients.simulate import Simulator

KINDS = ("gaussian", "laplace")


@dataclass(frozen=True)
class Channel:
    """What the client does to its gradient. kind: of the noise. scale: s or b, of one entry of the update as a
    gradient. clip: largest norm, 0: none. each: clip every example's gradient, not the batch's.
    """

    kind: str
    scale: float
    clip: float
    each: bool

    @classmethod
    def of(cls, public: Mapping[str, Any], protocol: Protocol) -> Channel:
        """From `public_knowledge()`: `noise` (a kind), `clip`, and `noise_std` of an entry of the payload, or
        `multiplier`, the deviation over clip and lot in every step. Other noise, or none: nothing is done.
        """
        kind = public.get("noise", "")
        if kind not in KINDS:
            return cls("gaussian", 0.0, 0.0, False)
        steps = len(protocol.steps)
        path = protocol.local_rate * steps if protocol.sends == "delta" else 1.0
        clip = float(public.get("clip", 0.0))
        if "multiplier" in public:
            lot = protocol.local_batch or protocol.batch_size
            return cls(kind, float(public["multiplier"]) * clip / lot / steps**0.5, clip, True)
        return cls(kind, float(public.get("noise_std", 0.0)) / path, clip / path, False)

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise of one entry."""
        return self.scale * (2**0.5 if self.kind == "laplace" else 1.0)

    def clipped(self, g: Tensor) -> Tensor:
        """g: (n, size), each row to a norm of at most `clip`."""
        if not self.clip:
            return g
        return g * (self.clip / g.norm(dim=1, keepdim=True).clamp_min(TINY)).clamp_max(1.0)

    def mean(self, client: Simulator, x: Tensor, y: Tensor) -> Tensor:
        """The update without noise, (trials, size). x: (trials, batch, ...), y: (trials, batch, classes)."""
        batch = x.shape[1]
        if not self.each or batch == 1 or len(client.protocol.steps) > 1:
            return self.clipped(client(x, y))
        alone = self.clipped(client(x.flatten(0, 1)[:, None], y.flatten(0, 1)[:, None]))
        return alone.unflatten(0, (len(x), batch)).mean(1)

    def noisy(self, mean: Tensor, rng: torch.Generator) -> Tensor:
        """mean (n, size) with fresh noise."""
        if self.kind == "gaussian":
            return mean + self.scale * torch.randn(mean.shape, generator=rng).to(mean.device)
        u = torch.rand(mean.shape, generator=rng).to(mean.device).sub_(0.5)
        return mean - self.scale * u.sign() * (1 - 2 * u.abs()).clamp_min(TINY).log()


@dataclass(frozen=True)
class Likelihood:
    """-log p(observed | mean) per trial, divided by what makes it 1 - cosine where a Gaussian client clipped (then
    both norms are known and the squared distance says nothing else). observed, sent: (trials, size).
    """

    observed: Tensor
    sent: Tensor
    channel: Channel

    def __call__(self, mean: Tensor) -> Tensor:
        gap = (mean - self.observed) * self.sent
        if self.channel.kind == "laplace":
            return gap.abs().sum(1) / self.observed.abs().sum(1).clamp_min(TINY)
        total = self.observed.norm(dim=1)
        noise = self.channel.scale**2 * self.sent.sum(1)
        clean = (total.square() - noise).clamp_min(0.01 * total.square()).sqrt()  # norm before the noise
        known = clean.clamp_max(self.channel.clip) if self.channel.clip else clean
        return gap.square().sum(1) / (2 * total * known).clamp_min(TINY)

    def of(self, index: Any) -> Likelihood:
        return replace(self, observed=self.observed[index], sent=self.sent[index])
