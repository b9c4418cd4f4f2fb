"""How often each class occurs in a batch: SGI's search over counts (Ye et al., AAAI 2024).

Features behind a ReLU and an average differ between images, but some of their order statistics hardly do:
sorted, the r-th smallest feature is about a_r for every image. The head's gradient row of a present class i is
about -(n_i / B) times the feature, so its sorted absolute values at those ranks follow (n_i / B) * a, and the
counts n whose prediction points in the observed direction are the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from inversionbench.data.base import Part
    from inversionbench.gradients.problem import Problem

POPULATION, GENERATIONS = 20, 200
TINY = 1e-6  # order statistics with a smaller mean are dead


@dataclass(frozen=True)
class Ranks:
    """Which order statistics vary least over images, and their means. index, mean: (q,)."""

    index: Tensor
    mean: Tensor


def labels_by_evolution(problem: Problem, public: Part, images: int, ranks: int, rng: torch.Generator) -> Tensor:
    """Labels (clients, batch) by counts; order statistics of `images` public images, `ranks` of them (0: a rule)."""
    model = problem.model
    pick = torch.randperm(len(public), generator=rng)[:images].sort().values
    batch_norms = model.batch_norms()
    modes = [norm.batch for norm in batch_norms]
    for norm in batch_norms:
        norm.batch = False
    with torch.no_grad():
        features = model.features(model.front(public.images(pick.numpy()).to(problem.where)))
    for norm, mode in zip(batch_norms, modes):
        norm.batch = mode
    chosen = stable_ranks(features.cpu(), ranks or max(8, features.shape[1] // 25))
    rows = problem.update[model.head_names[0]].cpu()
    found = [recover(dw, problem.protocol.batch_size, chosen, rng) for dw in rows]
    return torch.stack(found).to(problem.where)


def stable_ranks(features: Tensor, count: int) -> Ranks:
    """The `count` order statistics of features (images, width) with the smallest deviation / mean.

    Ranks whose mean is below 1e-6 are left out; there may be fewer than `count`.
    """
    ordered = features.double().sort(dim=1).values
    mean, deviation = ordered.mean(0), ordered.std(0)
    variation = torch.where(mean > TINY, deviation / mean.clamp_min(TINY), torch.inf)
    index = variation.argsort(stable=True)[: min(count, int((mean > TINY).sum()))]
    return Ranks(index, mean[index])


def fitness(counts: Tensor, observed: Tensor, ranks: Ranks) -> Tensor:
    """Cosine of prediction and observation. counts: (k, present). observed: (present, q). Returns (k,)."""
    predicted = (counts.double()[:, :, None] * ranks.mean).flatten(1)
    return torch.cosine_similarity(predicted, observed.flatten()[None], dim=1, eps=1e-30)


def rescale(counts: Tensor, total: int) -> Tensor:
    """Whole numbers of at least 1 with sum `total` (k, present): scaled, cut, the rest put on the last class.

    Where cutting leaves the last class below 1, the largest class gives.
    """
    n = (counts.double() * total / counts.sum(1, keepdim=True)).floor().clamp_min(1)
    n[:, -1] += total - n.sum(1)
    while bool((n[:, -1] < 1).any()):
        rows = (n[:, -1] < 1).nonzero()[:, 0]
        n[rows, n[rows].argmax(dim=1)] -= 1
        n[rows, -1] += 1
    return n.long()


def mutate(counts: Tensor, rng: torch.Generator) -> Tensor:
    """Move one image from a random class that has several to another class, in every row."""
    out = counts.clone()
    for row in out:
        rich = (row > 1).nonzero()[:, 0]
        if len(rich) and len(row) > 1:
            giver = int(rich[torch.randint(len(rich), (1,), generator=rng)])
            taker = int(torch.randint(len(row) - 1, (1,), generator=rng))
            row[giver] -= 1
            row[taker + (taker >= giver)] += 1
    return out


def evolve(observed: Tensor, ranks: Ranks, batch: int, rng: torch.Generator) -> Tensor:
    """The fittest counts (present,) with sum `batch`: 20 parents, 200 generations, a child replaces its parent
    where it is fitter.
    """
    present = len(observed)
    most = max(1, batch - present + 1)
    parents = rescale(torch.randint(1, most + 1, (POPULATION, present), generator=rng), batch)
    best = fitness(parents, observed, ranks)
    for _ in range(GENERATIONS):
        other = parents[torch.randint(POPULATION, (POPULATION,), generator=rng)]
        mixed = torch.where(torch.rand(parents.shape, generator=rng) < 0.5, parents, other)
        children = mutate(rescale(mixed, batch), rng)
        value = fitness(children, observed, ranks)
        better = value > best
        parents[better], best[better] = children[better], value[better]
    return parents[int(best.argmax())]


def recover(dw: Tensor, batch: int, ranks: Ranks, rng: torch.Generator) -> Tensor:
    """Labels (batch,), sorted, from the head's weight gradient dw (classes, width)."""
    sums = dw.double().mean(1)
    order = sums.argsort(stable=True)
    present = order[: max(1, min(batch, int((sums < 0).sum())))].sort().values
    if len(present) == batch:
        return present
    observed = dw.double()[present].abs().sort(dim=1).values[:, ranks.index]
    return torch.repeat_interleave(present, evolve(observed, ranks, batch, rng))
