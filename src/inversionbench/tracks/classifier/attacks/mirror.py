"""MIRROR: codes of a style-based prior, held to where the prior's own codes lie; by gradients or by scores.

Survey 3.2 (generative). An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang, "MIRROR: Model Inversion for Deep Learning
Network with High Fidelity", NDSS 2022.

P space: the mapping before its last rectifier, where each coordinate is close to Gaussian. Codes are clipped to
`kappa` deviations around its mean after every step (the bounds are taken to w: the rectifier is monotone).
Codes are searched untruncated; truncation (psi, first `cutoff` layers) is inside every call of the generator.

access WB: the `restarts` samples (of `samples`) that the target scores highest for the class; Adam on
weight * CE of the image, or of its mirror image, the same for all, drawn at every step; the rate rises over the
first 5 % and falls along a cosine over the last 25 % of the `steps`. A row answers with its image of lowest loss.

access BB-S: a genetic search. The `population` best samples; fitness is the score. Each generation keeps the
best and draws the others' parents in proportion to the scores; a child takes each coordinate from the first
parent with probability s1 / (s1 + s2), and with probability `mutation` per coordinate moves in P space by up to
`mutation_size` deviations. It ends at score `goal` or after `generations`. One answer per class.

Parameters as published, but samples (100,000), steps (20,000 at most) and goal (0.95 in the genetic search).
goal: a class leaves once all its rows are scored so high (0: never). clip: without, for comparison. keep_at: steps
or generations, for curves.

Deviations: crossover by scores (the released code weighs by logarithms of scores, which are negative and so
favour the worse parent); a mutation is drawn for each child, not once per generation; the best image of each
row, not of the batch; a genetic search clips its samples before it asks; the target's dropout stays off; mean
and deviation of P space are those stored with the prior (10,000 samples).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import cos, inf, pi
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Share, Whole
from inversionbench.core.seeds import draw_seed
from inversionbench.latent.candidates import Ask, best_for, by_passes, codes, scores_of
from inversionbench.latent.genetic import Genetic
from inversionbench.latent.losses import cross_entropy
from inversionbench.latent.rows import passes_per_answer, rows
from inversionbench.latent.search import Search, in_blocks, rows_per_block
from inversionbench.latent.stop import Stop
from inversionbench.latent.styles import SharedW, SynthesisFromW, box, style_prior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from inversionbench.models.style_prior import StylePrior
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Mirror(Attack):
    """restarts: images of each class under WB. cutoff: layers that truncation reaches. rate: the highest."""

    id: ClassVar[str] = "mirror"
    level: ClassVar[tuple[str, ...]] = ("WB", "BB-S")
    prior: ClassVar[str] = "style"
    budget: ClassVar[tuple[str, ...]] = ("steps",)
    published = {"samples": 100000}

    access: Literal["WB", "BB-S"] = "WB"
    samples: Count = 5000
    psi: NonNegative = 0.7
    cutoff: Whole = 8
    kappa: NonNegative = 1.0
    clip: bool = True
    restarts: Count = 8
    steps: Count = 300
    rate: Positive = 0.2
    weight: NonNegative = 10.0
    population: Count = 100
    generations: Count = 100
    mutation: Share = 0.1
    mutation_size: NonNegative = 0.1
    goal: Share = 0.0
    keep_at: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        if self.population < 2:
            raise ValueError(f"population: expected at least 2, got {self.population}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = style_prior(knowledge.prior)
        with torch.no_grad():
            w = codes(prior, self.samples, rng)
        if self.access == "WB":
            return self.by_gradients(prior, oracle, knowledge.targets, w, rng)
        return self.by_scores(prior, oracle, knowledge.targets, w, rng)

    def by_gradients(
        self, prior: StylePrior, oracle: Oracle, targets: Tensor, w: Tensor, rng: torch.Generator
    ) -> Reconstruction:
        target = oracle.module().to(w.device)
        target.phase = "init"
        w, score = self._starts(prior, w, by_passes(target), targets, self.restarts)
        target.phase = "search"
        y, seed = rows(targets, self.restarts), draw_seed(rng)
        begun = passes_per_answer(oracle, len(y))
        limits = box(prior, self.kappa if self.clip else inf)
        outside = []

        def block(part: slice, labels: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
            search = Search(
                generator=SynthesisFromW(prior.style, self.psi, self.cutoff), target=target, identity=cross_entropy,
                optimiser=partial(RampedAdam, rate=self.rate, steps=self.steps), iterations=self.steps,
                weight=self.weight, views=_Mirrored(seed), stop=Stop(goal=self.goal), best=True,
                keep_at=[i for i in self.keep_at if i < self.steps],
            )  # fmt: skip
            code = SharedW(w[part], limits)
            out = search.run(code, labels.to(w.device))
            outside.append(_outside(code.w.detach(), prior, self.kappa))
            return out

        images, kept = in_blocks(y, block, rows_per_block(self.restarts, prior.style.resolution))
        end = passes_per_answer(oracle, len(y))  # less than all steps where classes reached the goal
        checkpoints = [(min(begun + step, end), x.clamp(0, 1)) for step, x in [*kept, (self.steps, images)]]
        notes = {"score_of_starts": float(score.mean()), "outside_share": float(torch.cat(outside).mean())}
        return Reconstruction(images.clamp(0, 1), y, checkpoints=checkpoints, notes=notes)

    def by_scores(
        self, prior: StylePrior, oracle: Oracle, targets: Tensor, w: Tensor, rng: torch.Generator
    ) -> Reconstruction:
        def ask(x: Tensor, phase: str = "search") -> Tensor:
            return oracle.scores(x.cpu(), phase).to(w.device)

        limits = box(prior, self.kappa if self.clip else inf)
        w = w.clamp(*limits)  # before they are scored: a score belongs to the code that stays
        start, fitness = self._starts(prior, w, partial(ask, phase="init"), targets, self.population)
        begun = passes_per_answer(oracle, len(targets))
        search = Genetic(
            paint=SynthesisFromW(prior.style, self.psi, self.cutoff), ask=ask, limits=limits,
            spread=self.mutation_size * prior.p_std, mutation=self.mutation, goal=self.goal, rng=rng,
        )  # fmt: skip
        shape = len(targets), self.population
        found = search.run(start.view(*shape, -1), fitness.view(shape), targets.to(w.device), self.generations,
                           self.keep_at)  # fmt: skip
        checkpoints = [(begun + n * (self.population - 1), x) for n, x in found.kept]
        notes = {
            "score_of_starts": float(fitness.view(shape)[:, 0].mean()), "generations": found.generations.tolist(),
            "outside_share": float(_outside(found.codes, prior, self.kappa).mean()),
        }  # fmt: skip
        return Reconstruction(
            found.images, targets, scores=found.fitness[:, None].cpu(), checkpoints=checkpoints, notes=notes
        )

    def _starts(
        self, prior: StylePrior, w: Tensor, ask: Ask, targets: Tensor, each: int
    ) -> tuple[Tensor, Tensor]:
        """Codes (classes * each, w_dim) of the best samples, class by class, and their scores."""
        scores = scores_of(SynthesisFromW(prior.style, self.psi, self.cutoff), w, ask, mirrored=False)
        chosen = best_for(scores, targets, each)
        return w[chosen.flatten()], scores.T[targets.to(w.device)].gather(1, chosen).flatten()


class RampedAdam(torch.optim.Adam):
    """Adam whose rate rises linearly over the first 5 % of `steps` and falls along a cosine over the last 25 %."""

    def __init__(self, parameters: Any, rate: float, steps: int):
        super().__init__(parameters, lr=rate)
        self.rate, self.steps, self.done = rate, steps, 0

    def step(self, closure: Any = None) -> Any:
        t = self.done / self.steps
        fall = 0.5 - 0.5 * cos(pi * min(1.0, (1 - t) / 0.25))
        self.param_groups[0]["lr"] = self.rate * fall * min(1.0, t / 0.05)
        self.done += 1
        return super().step(closure)


class _Mirrored:
    """The one view: all images, or all their mirror images, with equal probability at every step."""

    def __init__(self, seed: int):
        self.rng = torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        return (x.flip(-1) if torch.rand((), generator=self.rng) < 0.5 else x,)


def _outside(w: Tensor, prior: StylePrior, kappa: float) -> Tensor:
    """Share of coordinates of each code (n, w_dim) beyond kappa deviations in P space: (n,)."""
    low, high = box(prior, kappa)
    return ((w < low) | (w > high)).float().mean(1)
