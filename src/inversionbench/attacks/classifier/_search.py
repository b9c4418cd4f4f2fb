"""The loop of generative inversion, once, with the parts in which its attacks differ.

    latent = sampler(rows)                        one row per wanted image: class x restart
    for step in range(iterations):
        x     = generator(latent.draw())          point | Gaussian | flow | one w per layer
        seen  = target(view) for view of views(x) the image itself | random crops, flips, ...
        loss  = weight * mean over views of identity(logits, y) + sum of terms(x, seen)
        optimiser.step()                          momentum | Adam | ...
        latent.project()                          box | ball around the start | nothing
    keep    = select(images, y)                   all | best restart by the target | robust to views

Rows never influence each other: losses are summed over rows and divided by a fixed reference size, not by
the size of the batch, so that a result does not depend on how many classes are attacked at once. Each view
costs one pass of the target per row and step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from inversionbench.attacks.classifier._losses import IdentityLoss
from inversionbench.models.base import Trace
from inversionbench.oracle.classifier import WhiteBox

CHUNK = 256  # rows optimised at once: bounds the memory
Term = Callable[[Tensor, Trace], Tensor]  # (images, the target's view of them) -> (rows,)


class Latent(Protocol):
    """What is optimised for a block of rows."""

    parameters: list[Tensor]

    def draw(self) -> Tensor:
        """What the generator takes, (rows, ...), differentiable in the parameters."""
        ...

    def project(self) -> None:
        """Put the parameters back where they are allowed to be."""
        ...


class Point:
    """One latent vector per row, kept in the box [-box, box]; 0 = no box. z: (rows, z_dim)."""

    def __init__(self, z: Tensor, box: float = 0.0):
        self.z = z.clone().requires_grad_(True)
        self.box = box
        self.parameters = [self.z]

    def draw(self) -> Tensor:
        return self.z

    def project(self) -> None:
        if self.box:
            with torch.no_grad():
                self.z.clamp_(-self.box, self.box)


class Optimiser(Protocol):
    """What the loop asks of an optimiser; those of torch.optim fit."""

    def step(self) -> object: ...


class Momentum:
    """Momentum as the GMI family writes it: v' = m v - r g; z = z - m v + (1 + m) v'."""

    def __init__(self, parameters: list[Tensor], rate: float, momentum: float):
        self.parameters, self.rate, self.momentum = parameters, rate, momentum
        self.velocity = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self) -> None:
        m = self.momentum
        for p, v in zip(self.parameters, self.velocity, strict=True):
            before = v.clone()
            assert p.grad is not None
            v.mul_(m).sub_(p.grad, alpha=self.rate)
            p.sub_(before, alpha=m).add_(v, alpha=1 + m)


def as_is(x: Tensor) -> Sequence[Tensor]:
    """The only view is the image itself."""
    return (x,)


@dataclass(frozen=True)
class Search:
    """One setting of the loop. See the module for the parts; `views` may draw from a generator of its own."""

    generator: nn.Module
    target: WhiteBox
    identity: IdentityLoss
    optimiser: Callable[[list[Tensor]], Optimiser]
    iterations: int
    weight: float = 1.0
    terms: Sequence[Term] = ()
    views: Callable[[Tensor], Sequence[Tensor]] = as_is
    reference: int = 1
    keep_at: Sequence[int] = field(default=())

    def run(self, latent: Latent, y: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Optimise one block. y: (rows,). Returns final images (rows, c, h, w) and those at `keep_at`."""
        optimiser = self.optimiser(latent.parameters)
        kept = {}
        for step in range(1, self.iterations + 1):
            x = self.generator(latent.draw())
            loss = self.loss(x, y).sum() / self.reference
            gradients = torch.autograd.grad(loss, latent.parameters)
            for parameter, gradient in zip(latent.parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
            latent.project()
            if step in self.keep_at:
                kept[step] = self.images(latent)
        return self.images(latent), kept

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of each row: (rows,)."""
        seen = [self.target.trace(view) for view in self.views(x)]
        rows = self.weight * torch.stack([self.identity(s.logits, y) for s in seen]).mean(0)
        for term in self.terms:
            rows = rows + term(x, seen[0])
        return rows

    @torch.no_grad()
    def images(self, latent: Latent) -> Tensor:
        return self.generator(latent.draw()).cpu()


def in_blocks(
    y: Tensor, run: Callable[[slice, Tensor], tuple[Tensor, dict[int, Tensor]]], block: int = CHUNK
) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """Run rows block by block and join images and checkpoints. run(rows, y of the rows)."""
    images, kept = [], []
    for start in range(0, len(y), block):
        rows = slice(start, min(start + block, len(y)))
        made, at = run(rows, y[rows])
        images.append(made)
        kept.append(at)
    checkpoints = [(step, torch.cat([k[step] for k in kept])) for step in sorted(kept[0])]
    return torch.cat(images), checkpoints
