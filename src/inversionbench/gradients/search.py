"""The descent that all iterative gradient attacks share: per-trial best iterate, frozen failures, chunks.

    evaluate(variables) -> (objective, match), each (trials,): what is minimised, and the matching loss alone,
    by which restarts are compared. Everything that a trial is judged by stays inside that trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inversionbench.gradients.adam import Adam
from inversionbench.gradients.schedules import factor

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass
class Found:
    """What a descent found. x: (trials, ...) the best iterate by objective; match: (trials,) its matching loss,
    infinite where no finite value was ever seen; evaluations: gradient evaluations, summed over trials;
    frozen: trials stopped because they left the finite numbers. held: what would have been found at smaller
    budgets, (evaluations, x, match) each.
    """

    x: Tensor
    objective: Tensor
    match: Tensor
    evaluations: int
    frozen: Tensor
    held: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)

    @staticmethod
    def join(parts: Sequence[Found]) -> Found:
        return Found(
            torch.cat([p.x for p in parts]),
            torch.cat([p.objective for p in parts]),
            torch.cat([p.match for p in parts]),
            sum(p.evaluations for p in parts),
            torch.cat([p.frozen for p in parts]),
            [(sum(h[0] for h in held), torch.cat([h[1] for h in held]), torch.cat([h[2] for h in held]))
             for held in zip(*(p.held for p in parts))],
        )  # fmt: skip


class Best:
    """The best iterate of each trial so far, by objective."""

    def __init__(self, x: Tensor):
        self.x = x.detach().clone()
        self.objective = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.match = self.objective.clone()

    def renew(self, which: Tensor) -> None:
        """The objective has changed for the trials `which`: whatever finite value comes next is their best."""
        self.objective = self.objective.masked_fill(which, torch.inf)

    def offer(self, x: Tensor, objective: Tensor, match: Tensor) -> None:
        """Take the trials that are better; comparisons with NaN are false."""
        better = objective < self.objective
        self.objective = torch.where(better, objective, self.objective)
        self.match = torch.where(better, match, self.match)
        torch.where(better.view(-1, *[1] * (x.ndim - 1)), x, self.x, out=self.x)


def adam(
    x: Tensor,
    evaluate: Evaluate,
    steps: int,
    rate: float,
    signed: bool = True,
    box: tuple[float, float] | None = None,
    schedule: str = "drops",
    warm_up: int = 0,
    after: Callable[[Tensor, int], None] | None = None,
    direction: Callable[[Tensor, int], Tensor] | None = None,
    fresh: Container[int] = (),
    hold: Container[int] = (),
) -> Found:
    """Minimise with (signed) Adam. `after(x, t)` may change x in place after each step, under no_grad.

    direction(gradient, t): what Adam is fed with (takes the place of `signed`). fresh: steps at which the
    objective changes, so that the best iterate starts anew. hold: numbers of steps after which the answer so
    far is kept.

    A trial whose objective or gradient is not finite is frozen at its last iterate and scored by its best.
    """
    x = x.detach().clone().requires_grad_()
    optimiser, best = Adam(x.data, signed and direction is None), Best(x)
    held_answers: list[tuple[int, Tensor, Tensor]] = []
    frozen = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    evaluations, lost = 0, 0
    wide = (-1, *[1] * (x.ndim - 1))
    for t in range(steps):
        objective, match = evaluate(x)
        (gradient,) = torch.autograd.grad(objective.sum(), x)
        evaluations += len(x) - lost
        if t in fresh:
            best.renew(~frozen)
        best.offer(x.data, objective.detach(), match.detach())
        if t + 1 in hold:
            held_answers.append((evaluations, best.x.clone(), best.match.clone()))
        if not math.isfinite(float(objective.detach().sum() + gradient.sum())):
            frozen |= ~torch.isfinite(objective.detach() + gradient.flatten(1).sum(1))
            lost = int(frozen.sum())
        if lost:
            gradient = gradient.masked_fill(frozen.view(wide), 0.0)
            held = x.data.clone()
        if direction is not None:
            gradient = direction(gradient, t)
        with torch.no_grad():
            optimiser.step(gradient, rate * factor(schedule, t, steps, warm_up))
            if box is not None:
                x.data.clamp_(*box)
            if after is not None:
                after(x.data, t)
            if lost:
                x.data.copy_(torch.where(frozen.view(wide), held, x.data))
    return Found(best.x, best.objective, best.match, evaluations, frozen, held_answers)


def milestones(steps: int) -> tuple[int, ...]:
    """Numbers of steps at which a search hands over what it has, for curves over gradient evaluations.

    >>> milestones(300)
    (19, 38, 75, 150)
    """
    return tuple(sorted({max(1, math.ceil(steps / d)) for d in (16, 8, 4, 2)} - {steps}))


def chunks(trials: int, bytes_each: int, budget: int) -> list[slice]:
    """Trials in runs that stay within `budget` bytes."""
    size = max(1, min(trials, budget // max(1, bytes_each)))
    count = -(-trials // size)
    size = -(-trials // count)  # equal runs
    return [slice(i, min(i + size, trials)) for i in range(0, trials, size)]


def select(found: Found, restarts: int) -> tuple[Tensor, Tensor]:
    """Of trials in the order (restart, subject): the restart with the lowest matching loss of each subject.

    Returns x (subjects, ...) and the loss (subjects,); a subject whose loss is infinite failed.
    """
    return lowest(found.x, found.match, restarts)


def lowest(x: Tensor, match: Tensor, restarts: int) -> tuple[Tensor, Tensor]:
    """`select` on x (trials, ...) and match (trials,)."""
    match = match.view(restarts, -1)
    value, which = match.min(dim=0)
    subjects = torch.arange(match.shape[1], device=match.device)
    return x.view(restarts, match.shape[1], *x.shape[1:])[which, subjects], value
