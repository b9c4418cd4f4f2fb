"""Approach "gradient" of RL-GraphMI: projected descent by a gradient that is estimated from labels of binary graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inversionbench.tracks.graph.attacks._edges import adjacency, project, smoothness

if TYPE_CHECKING:
    from inversionbench.tracks.graph.attacks.rl_graphmi import RLGraphMI

Wrong = Callable[[Tensor], Tensor]  # graphs (k, n, n) -> share of nodes with a wrong label (k,)
EDGE = 0.01  # chances stay this far from 0 and 1, else a pair is never tried again
DAMPING = 0.05  # of the score's variance: rare pairs else move by leaps
DECAY = 0.9  # of the running mean that answers are compared with


def descend(
    attack: RLGraphMI, wrong: Wrong, x: Tensor, y: Tensor, edges: int, rng: torch.Generator
) -> list[tuple[int, Tensor]]:
    """(queries, chances (m,)) at a quarter, a half and the end of the budget."""
    n = len(y)
    a = torch.full((n * (n - 1) // 2,), edges / (n * (n - 1) / 2)).clamp(EDGE, 1 - EDGE)
    likeness, base = x @ x.T, None
    cost = attack.draws * (2 if attack.estimator == "antithetic" else 1)
    steps = max(1, attack.queries // cost)
    held: list[tuple[int, Tensor]] = []
    for step in range(1, steps + 1):
        if attack.estimator == "score":
            gradient, base = by_score(wrong, a, n, attack.draws, base, rng)
        else:
            gradient = by_differences(wrong, a, n, attack.draws, attack.width, rng)
        gradient = gradient + free_terms(a, likeness, attack.alpha, attack.beta)
        a = project(a - attack.rate * gradient, edges).clamp(EDGE, 1 - EDGE)
        if step in (max(1, steps // 4), max(1, steps // 2), steps) and (not held or held[-1][0] < step * cost):
            held.append((step * cost, a.clone()))
    return held


def by_score(
    wrong: Wrong, a: Tensor, n: int, draws: int, base: float | None, rng: torch.Generator
) -> tuple[Tensor, float]:
    """The gradient of E l(B): mean of (l(B) - base) (B - a) / (a (1 - a) + DAMPING), and the running mean of l."""
    drawn = (torch.rand(draws, len(a), generator=rng) < a).float()
    loss = wrong(adjacency(drawn, n))
    base = float(loss.mean()) if base is None else base
    gradient = ((loss - base) @ (drawn - a)) / draws / (a * (1 - a) + DAMPING)
    return gradient, DECAY * base + (1 - DECAY) * float(loss.mean())


def by_differences(wrong: Wrong, a: Tensor, n: int, draws: int, width: float, rng: torch.Generator) -> Tensor:
    """The same by antithetic differences: two graphs drawn with chances a + width u and a - width u, u of random signs,
    from the same uniform numbers."""
    signs = torch.randint(0, 2, (draws, len(a)), generator=rng) * 2.0 - 1
    uniform = torch.rand(draws, len(a), generator=rng)
    up, down = (wrong(adjacency((uniform < (a + s * width * signs).clamp(0, 1)).float(), n)) for s in (1, -1))
    return ((up - down) @ signs) / draws / (2 * width)


def free_terms(a: Tensor, likeness: Tensor, alpha: float, beta: float) -> Tensor:
    """Gradient of alpha tr(X^T L X) + beta sum a: no query."""
    wanted = a.clone().requires_grad_()
    loss = alpha * smoothness(adjacency(wanted, len(likeness)), likeness) + beta * wanted.sum()
    return torch.autograd.grad(loss, wanted)[0]
