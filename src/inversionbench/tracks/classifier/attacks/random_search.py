"""Control: of `draws` images of the prior, the one that the target scores highest for the class.

Random search with scores on the same axis as the attacks: one query (or pass) per draw. An attack that does
not beat it at equal queries has found nothing by its method. By default each wanted image has draws of its
own; `shared`: every draw serves all rows (one answer holds the scores of all classes), each class takes its
best ones, at the same total number of queries. Where scores tie (rounded ones do) the first draw stays. base
`public` draws public images in place of a prior's: what anybody finds who trains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count
from inversionbench.latent.rows import generate, rows

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle

BLOCK = 1024  # latents scored at once


@dataclass(frozen=True)
class RandomSearch(Attack):
    """base: the prior, dcgan or style, or the public images. draws: queries per wanted image. restarts: images per
    class. keep_at: draws at which the current best images are kept, for curves."""

    id: ClassVar[str] = "random_search"
    level: ClassVar[str] = "BB-S"
    prior: ClassVar[dict[str, tuple[str, ...]]] = {"dcgan": ("dcgan",), "style": ("style",), "public": ()}
    control: ClassVar[bool] = True

    base: Literal["dcgan", "style", "public"] = "dcgan"
    draws: Count = 1500
    restarts: Count = 5
    shared: bool = False
    keep_at: tuple[Count, ...] = ()

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = _Public(knowledge.public) if self.base == "public" else knowledge.prior
        make = prior.images if isinstance(prior, _Public) else partial(generate, prior)
        y = rows(knowledge.targets, self.restarts)
        stops = sorted({i for i in self.keep_at if i < self.draws} | {self.draws})
        best = (_SharedBest if self.shared else _Best)(y, self.restarts, prior.z_dim)
        kept = []
        done = 0
        for stop in stops:
            while done < stop:
                n = min(max(BLOCK // len(y), 1), stop - done)
                z = prior.sample(n * len(y), rng)
                best.offer(z, oracle.scores(make(z)))
                done += n
            kept.append((stop, make(best.z)))
        return Reconstruction(kept[-1][1], y, scores=best.score[:, None], checkpoints=kept)


class _Public:
    """The public images in the place of a prior: a latent (n, 1) is the number of one."""

    z_dim = 1

    def __init__(self, part: Part):
        self.part = part

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randint(len(self.part), (n, 1), generator=rng).float()

    def images(self, z: Tensor) -> Tensor:
        return self.part.images(z[:, 0].long().numpy())


class _Best:
    """For each row the best of its own draws; draw i of a call belongs to row i modulo rows."""

    def __init__(self, y: Tensor, restarts: int, z_dim: int):
        self.y, self.restarts = y, restarts
        self.z = torch.zeros(len(y), z_dim)
        self.score = torch.full((len(y),), -torch.inf)

    def offer(self, z: Tensor, scores: Tensor) -> None:
        """z: (k * rows, z_dim); scores: (k * rows, classes)."""
        for part, got in zip(z.split(len(self.y)), scores.split(len(self.y)), strict=True):
            own = got.gather(1, self.y[:, None])[:, 0]
            better = own > self.score
            self.z[better], self.score[better] = part[better], own[better]


class _SharedBest(_Best):
    """For each class its best draws among all, as many as it has rows."""

    def offer(self, z: Tensor, scores: Tensor) -> None:
        k = self.restarts
        for first in range(0, len(self.y), k):
            own = torch.cat([self.score[first : first + k], scores[:, self.y[first]]])
            top = own.sort(descending=True, stable=True).indices[:k]
            self.score[first : first + k] = own[top]
            self.z[first : first + k] = torch.cat([self.z[first : first + k], z])[top]
