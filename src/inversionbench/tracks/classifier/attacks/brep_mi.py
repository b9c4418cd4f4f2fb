"""BREP-MI: with labels only, move a latent point away from the boundary of its class.

Survey 3.2 (generative). Kahla, Chen, Just, Jia, "Label-Only Model Inversion Attacks via Boundary Repulsion",
CVPR 2022.

1. Draw latents, clamp to [-box, box], ask their labels, until every wanted class has a start.
2. Ask the labels of `sphere` points z + R u, u uniform on the unit sphere. Direction: the mean over all of
   phi u with phi = -1 where the label is another, 0 where it is y (repulsion from outside points only).
3. z' = clamp(z + min(R/3, step) * direction); one label; z' is taken only if it is still y, else again from 2.
4. If more than `inside` of the sphere points are y: the point is recorded as the answer, R grows by `growth`.
   The move of step 3 is made in this iteration too, as in the authors' code.
5. Stop after `iterations` without growth, or `limit` iterations in all. Answer: the point recorded last.

Every iteration of a row costs sphere + 1 queries, also the rejected ones, which the authors' code leaves
uncounted; nothing is asked for printing. Parameters as published: sphere 32, growth 1.3, step 3, box 1.5,
inside 0.875 (the code's 0.75 of a sum of +-1; the paper asks for all), iterations 1000, radius 0.2 sqrt(z_dim)
(the published 2 at 100 dimensions). start_batch, start_cap: latents asked at once, and in all per class,
before a class is given up: it counts as a failure and its row keeps an image of the prior. limit 0: none.
keep_at: iterations whose answers are kept for the curve, at queries per row with the starts' share.

A row whose first sphere never grows answers with its start (the last point of its class that it knows).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Share, Whole
from inversionbench.latent.rows import generate, passes_per_answer, rows

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.prior import Prior
    from inversionbench.oracle.base import Oracle

BLOCK = 1024  # sphere points asked at once


@dataclass(frozen=True)
class BrepMi(Attack):
    id: ClassVar[str] = "brep_mi"
    level: ClassVar[str] = "LO"
    prior: ClassVar[str] = "dcgan"
    budget: ClassVar[tuple[str, ...]] = ("limit",)

    sphere: Count = 32
    radius: Positive = 0.2
    growth: Positive = 1.3
    step: Positive = 3.0
    box: NonNegative = 1.5
    inside: Share = 0.875
    iterations: Count = 1000
    limit: Whole = 0
    start_batch: Count = 256
    start_cap: Count = 5000
    restarts: Count = 1
    keep_at: tuple[Count, ...] = ()

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = knowledge.prior
        y = rows(knowledge.targets, self.restarts)
        z, found = self.starts(oracle, prior, y, rng)
        shared = passes_per_answer(oracle, len(y))  # every draw served all rows
        first = generate(prior, z)
        answer, radius, kept = self.repel(oracle, prior, z, y, found, rng)
        return Reconstruction(
            generate(prior, answer), y, scores=radius[:, None], failed=~found,
            checkpoints=[(shared, first), *((shared + n, generate(prior, a)) for n, a in kept)],
            notes={"initialised": int(found.sum()), "mean_radius": float(radius[found].mean()) if found.any() else 0.0},
        )

    def starts(
        self, oracle: Oracle, prior: Prior, y: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A latent whose image is labelled y for each row (rows, z_dim), and whether one was found (rows,)."""
        z = prior.sample(len(y), rng).clamp(-self.box, self.box)
        found = torch.zeros(len(y), dtype=torch.bool)
        asked, cap = 0, self.start_cap * len(y.unique())
        while not found.all() and asked < cap:
            draw = prior.sample(min(self.start_batch, cap - asked), rng).clamp(-self.box, self.box)
            labels = oracle.labels(generate(prior, draw), phase="init")
            asked += len(draw)
            for i, label in enumerate(labels.tolist()):
                open_rows = ((y == label) & ~found).nonzero()[:, 0]
                if len(open_rows):
                    z[open_rows[0]], found[open_rows[0]] = draw[i], True
        return z, found

    def repel(
        self, oracle: Oracle, prior: Prior, z: Tensor, y: Tensor, found: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, list[tuple[int, Tensor]]]:
        """Answers (rows, z_dim), radii (rows,), and answers after each iteration of `keep_at`, by queries."""
        z, answer = z.clone(), z.clone()
        radius = torch.full((len(y),), self.radius * prior.z_dim**0.5)
        idle = torch.zeros(len(y), dtype=torch.long)
        done, kept = 0, []
        while True:
            going = (found & (idle < self.iterations)).nonzero()[:, 0]
            if not len(going) or (self.limit and done >= self.limit):
                break
            direction, share = self.direction(oracle, prior, z[going], y[going], radius[going], rng)
            grown = share > self.inside
            answer[going[grown]] = z[going[grown]]
            size = (radius[going] / 3).clamp_max(self.step)[:, None]
            moved = (z[going] + size * direction).clamp(-self.box, self.box)
            stays = oracle.labels(generate(prior, moved)) == y[going]
            z[going[stays]] = moved[stays]
            radius[going[grown]] *= self.growth
            idle[going] += 1
            idle[going[grown]] = 0
            done += 1
            if done in self.keep_at:
                kept.append((done * (self.sphere + 1), answer.clone()))
        return answer, radius, [*kept, (done * (self.sphere + 1), answer)]

    def direction(
        self, oracle: Oracle, prior: Prior, z: Tensor, y: Tensor, radius: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mean of phi u (rows, z_dim), and the share of sphere points labelled y (rows,)."""
        u = torch.randn(len(z), self.sphere, z.shape[1], generator=rng)
        u = u / u.norm(dim=2, keepdim=True)
        points = (z[:, None] + radius[:, None, None] * u).flatten(0, 1)
        labels = torch.cat([oracle.labels(generate(prior, part)) for part in points.split(BLOCK)])
        outside = (labels.view(len(z), self.sphere) != y[:, None]).float()
        return -(outside[:, :, None] * u).mean(1), 1 - outside.mean(1)
