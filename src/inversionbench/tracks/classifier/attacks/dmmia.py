"""DMMIA: PPA with a memory of what its earlier reconstructions looked like to the target.

Survey 3.2 (generative). Qi, Chen, Mao, Hui, Li, Zhang, Xue, "Model Inversion Attack via Dynamic Memory
Learning", ACM MM 2023. *Reconstruction*: the paper could not be read; the method is rebuilt from a description
and from part of a released module.

The search, starts and final choice are PPA's. Batches hold one class; the memories (`_prototypes`) live through
all batches and classes. To PPA's loss of an image are added
    imr * imr_sign * (-log r_IMR) + idr * idr_sign * (-log r_IDR),
intra-class prototypes for diversity (imr_sign -1: away from what the class has shown; the prototypes themselves
always learn to attract it) and inter-class history for discrimination (idr_sign +1: near the class's own, away
from others'). The signs of the paper are not known for certain, so both are parameters.

prototypes: K of each class (published 800 for 512 features). momentum: of the history, as published.
memory_rate: of Adam on the prototypes. imr, idr: weights. batch: candidates of a class searched together.
The rest as in PPA. With both weights 0 there is no memory, and a class's answers are PPA's.

Deviations from the released module: one step on the sum of the losses (there the memory's gradient, times
1e-6, is added to the old one and a second step is taken); prototypes learn (there they get no gradient); ratios
per image, of unit vectors; -log r for r.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, PositiveShare, ShareBelowOne
from inversionbench.core.seeds import draw_seed, spawn
from inversionbench.latent.prototypes import Memory
from inversionbench.latent.rows import rows
from inversionbench.latent.search import in_blocks
from inversionbench.latent.styles import SharedW, style_prior
from inversionbench.tracks.classifier.attacks.ppa import Ppa, choose, start

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.models.style_prior import StylePrior
    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox


@dataclass(frozen=True)
class Dmmia(Attack):
    id: ClassVar[str] = "dmmia"
    level: ClassVar[str] = "WB"
    prior: ClassVar[str] = "style"
    budget: ClassVar[tuple[str, ...]] = ("candidates", "steps")

    samples: Count = 5000
    psi: NonNegative = 0.5
    candidates: Count = 200
    steps: Count = 70
    rate: Positive = 0.005
    crop: tuple[PositiveShare, PositiveShare] = (0.9, 1.0)
    restarts: Count = 50
    transforms: Count = 100
    batch: Count = 50
    prototypes: Count = 800
    momentum: ShareBelowOne = 0.7
    memory_rate: Positive = 0.01
    imr: NonNegative = 0.1
    idr: NonNegative = 0.1
    imr_sign: Literal[-1, 1] = -1
    idr_sign: Literal[-1, 1] = 1

    def __post_init__(self) -> None:
        if self.prototypes < 2 or self.prototypes % 2:
            raise ValueError(f"prototypes: expected an even number, half of them positive; got {self.prototypes}")
        if not 1 <= self.restarts <= self.candidates:
            raise ValueError(f"restarts: expected 1 to the {self.candidates} candidates, got {self.restarts}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = style_prior(knowledge.prior)
        target = oracle.module().to(prior.p_mean.device)
        targets = knowledge.targets
        w, notes = start(prior, target, targets, self.samples, self.psi, self.candidates, rng)
        y = rows(targets, self.candidates)
        seed = draw_seed(rng)
        memory = self.memory(spawn(rng)) if self.imr or self.idr else None
        images = []
        for first in range(0, len(y), self.candidates):
            of_class = slice(first, first + self.candidates)
            images.append(self.one_class(prior, target, memory, seed, w[of_class], y[of_class].to(w.device)))
        answer = choose(oracle, target, torch.cat(images), y, self.candidates, self.restarts, self.transforms, rng)
        answer.notes |= notes
        return answer

    def one_class(
        self, prior: StylePrior, target: WhiteBox, memory: Memory | None, seed: int, w: Tensor, y: Tensor
    ) -> Tensor:
        """Images of all candidates w (candidates, w_dim) of one class, batch by batch. seed: of the crops."""
        if memory:
            memory.label = int(y[0])

        def block(part: slice, labels: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
            search = Ppa(steps=self.steps, rate=self.rate, crop=self.crop).search(prior, target, seed)
            if memory:
                search = replace(search, terms=(memory,), after=memory.update)
            return search.run(SharedW(w[part]), labels)

        return in_blocks(y, block, self.batch)[0]

    def memory(self, rng: torch.Generator) -> Memory:
        """Both memories, empty."""
        return Memory(
            self.prototypes, (self.imr, self.idr), (self.imr_sign, self.idr_sign), self.momentum, self.memory_rate, rng
        )
