"""BREP-MI: with labels only, move a latent point away from the boundary of its class.

Survey 3.2 (generative). Kahla, Chen, Just, Jia, "Label-Only Model Inversion Attacks via Boundary Repulsion",
CVPR 2022.

1. Draw latents, ask their labels, until every wanted class has a start.
2. Ask the labels of `sphere` points z + R u, u uniform on the unit sphere. Direction: the mean over all of phi u,
   phi = +1 where the label is y and -1 where it is another (score: signed), or 0 and -1 (repulsion).
3. z' = z + min(R/3, step) * direction; one label; z' is taken only if it is still y, else again from 2.
4. If more than `inside` of the sphere points are y, R grows by `growth`; the move of step 3 is made all the same.
5. Stop after `iterations` without growth, or `limit` iterations in all (0: none). Answer: the last point, or
   (grown) the point after the move of the iteration in which the sphere last grew.

Every iteration of a row costs sphere + 1 queries, also the rejected ones, which the authors' code leaves uncounted;
nothing is asked for printing. box: latents are clamped to [-box, box], 0 for none. radius: of the first sphere.
start_batch, start_cap: latents asked at once, and in all per class, before a class is given up: it counts as a
failure and its row keeps an image of the prior. keep_at: iterations whose answers are kept for the curve, at
queries per row with the starts' share.

The authors' settings are in `published`: repulsion, box 1.5, growth above 7/8 of the points (their 0.75 of a sum of
+-1; the paper asks for all) and the point after the last growth. Under equal queries they identify fewer people than
the defaults, which a public toolbox has: a point deep in its class moves by repulsion only in iterations in which the
sphere pokes out, and by signed scores in all; and a sphere that grows later steps less far.

Where a sphere never grows, `grown` answers with the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
    published: ClassVar[Mapping[str, Any]] = {"score": "repulsion", "box": 1.5, "inside": 0.875, "answer": "grown"}

    sphere: Count = 32
    radius: Positive = 2.0
    growth: Positive = 1.3
    step: Positive = 3.0
    score: Literal["signed", "repulsion"] = "signed"
    box: NonNegative = 0.0
    inside: Share = 0.75
    answer: Literal["last", "grown"] = "last"
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
        z = self.boxed(prior.sample(len(y), rng))
        found = torch.zeros(len(y), dtype=torch.bool)
        asked, cap = 0, self.start_cap * len(y.unique())
        while not found.all() and asked < cap:
            draw = self.boxed(prior.sample(min(self.start_batch, cap - asked), rng))
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
        z, at_growth = z.clone(), z.clone()
        answer = z if self.answer == "last" else at_growth
        radius = torch.full((len(y),), self.radius)
        idle = torch.zeros(len(y), dtype=torch.long)
        done, kept = 0, []
        while True:
            going = (found & (idle < self.iterations)).nonzero()[:, 0]
            if not len(going) or (self.limit and done >= self.limit):
                break
            direction, share = self.direction(oracle, prior, z[going], y[going], radius[going], rng)
            grown = share > self.inside
            size = (radius[going] / 3).clamp_max(self.step)[:, None]
            moved = self.boxed(z[going] + size * direction)
            stays = oracle.labels(generate(prior, moved)) == y[going]
            z[going[stays]] = moved[stays]
            at_growth[going[grown]] = z[going[grown]]
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
        inside = (labels.view(len(z), self.sphere) == y[:, None]).float()
        phi = 2 * inside - 1 if self.score == "signed" else inside - 1
        return (phi[:, :, None] * u).mean(1), inside.mean(1)

    def boxed(self, z: Tensor) -> Tensor:
        return z.clamp(-self.box, self.box) if self.box else z
