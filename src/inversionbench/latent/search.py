"""The loop of generative inversion, once, with the parts in which its attacks differ.

    latent = sampler(rows)                        one row per wanted image: class x restart
    for step in range(iterations):
        x     = generator(latent.draw())          point | Gaussian | flow | one w per layer
        seen  = target(view) for view of views(x) the image itself | random crops, flips, ...
        loss  = weight * mean over views of identity(logits, y) + sum of terms(x, seen)
        optimiser.step()                          momentum | Adam | ...
        latent.project()                          box | ball around the start | nothing
        classes that are finished leave the batch at their last images: see `_stop`
    keep    = select(images, y)                   all | best restart by the target | robust to views

Rows never influence each other: losses are summed over rows and divided by a fixed reference size, not by
the size of the batch, so that a result does not depend on how many classes are attacked at once. Each view
costs one pass of the target per row and step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from inversionbench.latent.losses import IdentityLoss
from inversionbench.latent.stop import Stop, Watch, follow, rows_of
from inversionbench.models.base import Trace
from inversionbench.oracle.classifier import WhiteBox

CHUNK = 256  # rows optimised at once, and
PIXELS = 2**23  # pixels of their images as the generator makes them: both bound the memory
Term = Callable[[Tensor, Trace], Tensor]  # (images, the target's view of them) -> (rows,)


class Latent(Protocol):
    """What is optimised for a block of rows. With a `stop` it also needs `keep(rows)`: go on with
    these alone, as new `parameters`."""

    parameters: list[Tensor]

    def draw(self) -> Any:
        """What the generator takes, a row each, differentiable in the parameters."""
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

    def keep(self, rows: Tensor) -> None:
        self.z = rows_of(self.z, rows)
        self.parameters = [self.z]


class Optimiser(Protocol):
    """What the loop asks of an optimiser; those of torch.optim fit."""

    def step(self) -> object: ...


class Momentum:
    """Momentum as the GMI family writes it: v' = m v - r g; z = z - m v + (1 + m) v'."""

    def __init__(self, parameters: list[Tensor], rate: float, momentum: float):
        self.rate, self.momentum = rate, momentum
        self.param_groups = [{"params": parameters}]
        self.state = {p: {"velocity": torch.zeros_like(p)} for p in parameters}

    @torch.no_grad()
    def step(self) -> None:
        m = self.momentum
        for p in self.param_groups[0]["params"]:
            v = self.state[p]["velocity"]
            before = v.clone()
            assert p.grad is not None
            v.mul_(m).sub_(p.grad, alpha=self.rate)
            p.sub_(before, alpha=m).add_(v, alpha=1 + m)


def as_is(x: Tensor) -> Sequence[Tensor]:
    """The only view is the image itself."""
    return (x,)


def nothing() -> None:
    """What a search does after a step unless told otherwise."""


@dataclass(frozen=True)
class Search:
    """One setting of the loop. See the module for the parts; `views` may draw from a generator of its own.

    stop: when a class leaves the batch. best: a row's answer is its image of lowest loss, not its last. after:
    called at the end of every step, for terms with a memory.
    """

    generator: Callable[[Any], Tensor]
    target: WhiteBox
    identity: IdentityLoss
    optimiser: Callable[[list[Tensor]], Optimiser]
    iterations: int
    weight: float = 1.0
    terms: Sequence[Term] = ()
    views: Callable[[Tensor], Sequence[Tensor]] = as_is
    reference: int = 1
    keep_at: Sequence[int] = field(default=())
    stop: Stop = field(default=Stop())
    best: bool = False
    after: Callable[[], None] = nothing

    def run(self, latent: Latent, y: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Optimise one block. y: (rows,). Returns final images (rows, c, h, w) and those at `keep_at`."""
        optimiser = self.optimiser(latent.parameters)
        active = _ActiveRows(self.stop, self.best, y)
        kept = {}
        for step in range(1, self.iterations + 1):
            x = self.generator(latent.draw())
            rows, seen = self.judge(x, y) if self.stop else (self.loss(x, y), [])
            gradients = torch.autograd.grad(rows.sum() / self.reference, latent.parameters)
            for parameter, gradient in zip(latent.parameters, gradients, strict=True):
                parameter.grad = gradient
            active.update_best(x, rows)
            finished = active.finished(x, rows, seen[0].logits, y) if seen else None
            optimiser.step()
            latent.project()
            y = active.drop_finished(finished, y, latent, optimiser)
            self.after()
            if step in self.keep_at:
                kept[step] = active.collect(lambda: self.images(latent))
            if not len(y):
                break
        final = active.collect(lambda: self.images(latent))
        return final, {step: kept.get(step, final) for step in self.keep_at if step <= self.iterations}

    def judge(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[Trace]]:
        """The loss of each row, (rows,), and what the target said of each view."""
        seen = [self.target.trace(view) for view in self.views(x)]
        rows = self.weight * torch.stack([self.identity(s.logits, y) for s in seen]).mean(0)
        for term in self.terms:
            rows = rows + term(x, seen[0])
        return rows, seen

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of each row: (rows,). A search of its own may replace it, and `judge` where it can stop."""
        return self.judge(x, y)[0]

    @torch.no_grad()
    def images(self, latent: Latent) -> Tensor:
        return self.generator(latent.draw()).cpu()


class _ActiveRows:
    """Which rows are still searched, and the images of those that have left, or of all at their best. y: (rows,)."""

    def __init__(self, stop: Stop, best: bool, y: Tensor):
        self.watch = Watch(stop, y) if stop else None
        self.left = torch.arange(len(y))
        self.lowest = torch.full((len(y),), torch.inf) if best else None
        self.done: Tensor | None = None  # (rows, c, h, w), filled as classes leave, or as losses fall

    def update_best(self, x: Tensor, loss: Tensor) -> None:
        """Where the best images are wanted, note those whose loss (rows,) is the lowest so far."""
        if self.lowest is None:
            return
        if self.done is None:
            self.done = x.detach().cpu().clone()
        loss = loss.detach().cpu()
        better = loss < self.lowest[self.left]
        self.lowest[self.left[better]] = loss[better]
        self.done[self.left[better]] = x.detach().cpu()[better]

    def finished(self, x: Tensor, loss: Tensor, logits: Tensor, y: Tensor) -> Tensor | None:
        """Which rows are finished at this step, None for none; their images are kept."""
        assert self.watch is not None
        out = self.watch.finished(loss, logits, y)
        if not out.any():
            return None
        if self.done is None:
            self.done = torch.zeros(len(self.left), *x.shape[1:])
        if self.lowest is None:
            self.done[self.left[out.cpu()]] = x.detach()[out].cpu()
        return out

    def drop_finished(self, finished: Tensor | None, y: Tensor, latent: Latent, optimiser: Optimiser) -> Tensor:
        """Take finished rows out of latent and optimiser; the classes of those that remain."""
        if finished is None:
            return y
        keep = (~finished).nonzero()[:, 0]
        self.left = self.left[keep.cpu()]
        old = latent.parameters
        latent.keep(keep)  # type: ignore[attr-defined]
        follow(optimiser, old, latent.parameters, keep)
        return y[keep]

    def collect(self, images: Callable[[], Tensor]) -> Tensor:
        """Images of all rows; `images` makes the current ones of the rows still searched."""
        if self.done is None:
            return images()
        out = self.done.clone()
        if self.lowest is None and len(self.left):
            out[self.left] = images()
        return out


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


def images_per_chunk(side: int) -> int:
    """Images of `side` pixels that are made at once.

    >>> images_per_chunk(64), images_per_chunk(1024)
    (256, 8)
    """
    return max(1, min(CHUNK, PIXELS // side**2))


def rows_per_block(each: int, side: int) -> int:
    """Rows of a block: whole classes of `each` rows, or as many rows as fit where a class does not.

    >>> rows_per_block(50, 64), rows_per_block(50, 1024)
    (250, 8)
    """
    return images_per_chunk(side) // each * each or images_per_chunk(side)
