"""What attacks on graphs share: pairs of nodes as a vector, the free terms of GraphMI, and the run on the twin.

A graph of n nodes is a vector a in [0, 1]^m, m = n (n - 1) / 2, of its pairs in the order of `pairs`: the strict lower
triangle, row by row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inversionbench.core.attack import Reconstruction
from inversionbench.core.seeds import draw_seed

ISOLATED = 1e-3  # added to degrees, so that a node without edges has an inverse square root (as in GraphMI's code)

# whether the twin is attacked, and all randomness -> (scores (m,), the claimed edges bool (m,), [(queries, scores)])
Search = Callable[[bool, torch.Generator], tuple[Tensor, Tensor, list[tuple[int, Tensor]]]]


def answer(search: Search, rng: torch.Generator) -> Reconstruction:
    """The attack on the target, and with the same random numbers on the twin that never saw an edge.

    data: float (1, m), a score for each pair; labels: the claimed edges, int64 (1, m). notes["twin"]: data of the
    twin.
    """
    seed = draw_seed(rng)
    found, twin = (search(which, torch.Generator().manual_seed(seed)) for which in (False, True))
    held = [(spent, scores[None].float()) for spent, scores in found[2]]
    return Reconstruction(found[0][None].float(), found[1][None].long(), checkpoints=held,
                          notes={"twin": twin[0][None].float()})  # fmt: skip


def pairs(n: int) -> Tensor:
    """The two nodes of each pair, int64 (2, m), the larger number first."""
    return torch.tril_indices(n, n, -1)


def adjacency(a: Tensor, n: int) -> Tensor:
    """(..., m) -> symmetric (..., n, n) with an empty diagonal."""
    out = a.new_zeros(*a.shape[:-1], n, n)
    row, column = pairs(n)
    out[..., row, column] = a
    return out + out.mT


def cosines(x: Tensor) -> Tensor:
    """Cosine of the rows of each pair. x: (n, d) -> (m,); a row of zeros is like no other."""
    unit = torch.nn.functional.normalize(x, dim=1)
    row, column = pairs(len(x))
    return (unit @ unit.T)[row, column]


def project(a: Tensor, most: float) -> Tensor:
    """The nearest point of [0, 1]^m with a sum of at most `most`: clamp(a - mu), mu >= 0 by bisection.

    >>> project(torch.tensor([0.9, 0.5, -1.0]), 1.0)
    tensor([0.7000, 0.3000, 0.0000])
    """
    if a.clamp(0, 1).sum() <= most:
        return a.clamp(0, 1)
    low, high = 0.0, float(a.max())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if (a - middle).clamp(0, 1).sum() > most else (low, middle)
    return (a - high).clamp(0, 1)


def smoothness(graph: Tensor, likeness: Tensor) -> Tensor:
    """tr(X^T L X), L = D^-1/2 (D - A) D^-1/2: small where joined nodes are alike. likeness: X X^T, (n, n)."""
    degrees = graph.sum(1)
    scale = (degrees + ISOLATED).rsqrt()
    return (likeness.diagonal() * degrees * scale.square()).sum() - (
        likeness * graph * scale[:, None] * scale[None]
    ).sum()


def top(scores: Tensor, count: int) -> Tensor:
    """The `count` pairs with the highest scores, bool (m,)."""
    out = torch.zeros(len(scores), dtype=torch.bool)
    out[scores.topk(min(count, len(scores))).indices] = True
    return out
