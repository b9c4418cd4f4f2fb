"""A genetic search of codes by the target's scores, all classes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inversionbench.latent.candidates import Ask, scores_of
from inversionbench.latent.search import images_per_chunk
from inversionbench.latent.styles import SynthesisFromW, p_space, w_space


@dataclass(frozen=True)
class Found:
    """Best code of each class (classes, w_dim), its image (classes, c, h, w) and score; generations of each class;
    kept: (generation, images) for a curve.
    """

    codes: Tensor
    images: Tensor
    fitness: Tensor
    generations: Tensor
    kept: list[tuple[int, Tensor]]


@dataclass
class Genetic:
    """limits: lowest and highest code. spread: (w_dim,), largest mutation of each coordinate in P space.
    mutation: its probability. goal: a class whose best score reaches it asks no more (0: never).
    """

    paint: SynthesisFromW
    ask: Ask
    limits: tuple[Tensor, Tensor]
    spread: Tensor
    mutation: float
    goal: float
    rng: torch.Generator

    def run(
        self, w: Tensor, fitness: Tensor, targets: Tensor, generations: int, keep_at: Sequence[int] = ()
    ) -> Found:
        """w: (classes, population, w_dim) within the limits, with known fitness
        (classes, population) >= 0, best first."""
        w, fitness = w.clone(), fitness.clone()
        lasted = torch.zeros(len(targets), dtype=torch.long)
        kept = []
        for generation in range(1, generations + 1):
            going = ((fitness[:, 0] < self.goal) | (self.goal <= 0)).nonzero()[:, 0]
            if not len(going):
                break
            children = self.children(w[going], fitness[going])
            scores = scores_of(self.paint, children.flatten(0, 1), self.ask, mirrored=False)
            of = targets[going].repeat_interleave(children.shape[1])
            new = scores.gather(1, of[:, None])[:, 0].view(children.shape[:2])
            w[going], fitness[going] = self.ranked(
                torch.cat([w[going, :1], children], 1), torch.cat([fitness[going, :1], new], 1)
            )
            lasted[going.cpu()] = generation
            if generation in keep_at and generation < generations:
                kept.append((generation, self.image(w)))
        images = self.image(w)
        kept.append((int(lasted.max()), images))
        return Found(w[:, 0], images, fitness[:, 0], lasted, [k for k in kept if k[0] <= kept[-1][0]])

    def children(self, w: Tensor, fitness: Tensor) -> Tensor:
        """population - 1 new codes of each class: (classes, population - 1, w_dim)."""
        count = w.shape[1] - 1
        share = fitness.clamp_min(1e-12).cpu()
        pairs = torch.multinomial(share, 2 * count, replacement=True, generator=self.rng).view(-1, 2, count)
        first, second = (w.gather(1, p[..., None].expand(-1, -1, w.shape[2]).to(w.device)) for p in pairs.unbind(1))
        s1, s2 = (share.gather(1, p) for p in pairs.unbind(1))
        size = first.shape
        from_first = torch.rand(size, generator=self.rng) < (s1 / (s1 + s2))[..., None]
        moves = (torch.rand(size, generator=self.rng) < self.mutation) * (2 * torch.rand(size, generator=self.rng) - 1)
        child = torch.where(from_first.to(w.device), first, second)
        return w_space(p_space(child) + moves.to(w.device) * self.spread).clamp(*self.limits)

    @staticmethod
    def ranked(w: Tensor, fitness: Tensor) -> tuple[Tensor, Tensor]:
        """Best first; among equals the older one."""
        order = fitness.sort(dim=1, descending=True, stable=True).indices
        return w.gather(1, order[..., None].expand_as(w)), fitness.gather(1, order)

    @torch.no_grad()
    def image(self, w: Tensor) -> Tensor:
        """Images of the best of each class, in [0, 1], on the CPU."""
        best = w[:, 0].split(images_per_chunk(self.paint.style.resolution))
        return torch.cat([self.paint(part).clamp(0, 1).cpu() for part in best])
