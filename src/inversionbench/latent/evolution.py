"""Differential evolution of latents by the target's answers, all classes at once (the second stage of C2FMI).

For each latent x of a class's population, in generation g of G:

    v = x + pull (best - x) + sum over `pairs` of beta (x_r - x_s),   r, s drawn from the population
    child: each coordinate from v with probability `crossover`, else from x
    the child replaces x if it is fitter

r and s are drawn with replacement; a pair of equals adds nothing. In the last `tail` generations beta falls to
beta (G - g) / 50. Fitness of parents is remembered: a generation costs one query for each member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Differential:
    """fitness: latents (n, dim) of classes y (n,) -> how fit they are (n,), on the CPU. y: (classes,)."""

    fitness: Callable[[Tensor, Tensor], Tensor]
    y: Tensor
    pull: float
    pairs: int
    beta: float
    crossover: float
    tail: int
    rng: torch.Generator

    def ask(self, w: Tensor) -> Tensor:
        """Fitness (classes, n) of latents (classes, n, dim)."""
        of = self.y.repeat_interleave(w.shape[1])
        return self.fitness(w.flatten(0, 1), of).view(w.shape[:2])

    def run(
        self, w: Tensor, fit: Tensor, generations: int, keep_at: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """The fittest of each class (classes, dim), its fitness (classes,), and the fittest after each generation of
        `keep_at`. w: (classes, population, dim); fit: (classes, population), theirs."""
        w, fit, kept = w.clone(), fit.clone(), {}
        for g in range(1, generations + 1):
            last = generations - g < self.tail
            child = self.children(w, fit, self.beta * (generations - g) / 50 if last else self.beta)
            got = self.ask(child)
            better = got > fit
            w[better], fit[better] = child[better], got[better]
            if g in keep_at:
                kept[g] = self.best(w, fit)
        return self.best(w, fit), fit.max(1).values, kept

    def children(self, w: Tensor, fit: Tensor, beta: float) -> Tensor:
        """One child of every member: (classes, population, dim)."""
        classes, size, dim = w.shape
        r, s = torch.randint(size, (2, classes, self.pairs * size), generator=self.rng).to(w.device)
        gaps = w.gather(1, r[..., None].expand(-1, -1, dim)) - w.gather(1, s[..., None].expand(-1, -1, dim))
        v = w + self.pull * (self.best(w, fit)[:, None] - w) + beta * gaps.view(classes, self.pairs, size, dim).sum(1)
        crossed = torch.rand(w.shape, generator=self.rng) < self.crossover
        return torch.where(crossed.to(w.device), v, w)

    @staticmethod
    def best(w: Tensor, fit: Tensor) -> Tensor:
        """(classes, dim); among equals the first."""
        return w[torch.arange(len(w)), fit.argmax(1)]
