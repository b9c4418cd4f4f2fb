"""When a class is finished, and what leaves the batch with it.

A finished class costs nothing any more: its rows leave the latents and the optimiser's memory, the next step
is computed for the others alone. Rows of a class leave together, at the images that the target was last asked
about, so that what remains is exactly the search of the remaining classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stop:
    """A class is finished when the target gave every one of its rows a softmax score of at least `goal` at
    `hold` steps in a row (goal 0: never), or when the mean loss of its rows has not fallen by more than `least`
    for `patience` steps (0: never). At each step the target's answer to the first view counts.
    """

    goal: float = 0.0
    hold: int = 1
    patience: int = 0
    least: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.goal <= 1:
            raise ValueError(f"goal: expected a score in [0, 1], got {self.goal}")
        if self.hold < 1 or self.patience < 0:
            raise ValueError(f"hold, patience: expected at least 1 and 0 steps, got {self.hold} and {self.patience}")

    def __bool__(self) -> bool:
        """Whether it can ever stop a class."""
        return self.goal > 0 or self.patience > 0


class Watch:
    """The state of one `Stop` over the classes of a block. y: (rows,)."""

    def __init__(self, stop: Stop, y: Tensor):
        self.stop = stop
        self.classes = y.unique()
        self.sure = torch.zeros(len(self.classes), dtype=torch.long, device=y.device)
        self.idle = torch.zeros_like(self.sure)
        self.best = torch.full((len(self.classes),), torch.inf, device=y.device)

    @torch.no_grad()
    def finished(self, loss: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Which of the rows (rows,) belong to a class that ends at this step. loss: (rows,); logits: (rows, c).

        Rows that have left are not asked about again.
        """
        at = torch.searchsorted(self.classes, y)
        count = torch.bincount(at, minlength=len(self.classes))
        score = logits.softmax(1).gather(1, y[:, None])[:, 0]
        unsure = torch.bincount(at[~(score >= self.stop.goal)], minlength=len(self.classes))
        self.sure = torch.where(unsure == 0, self.sure + 1, 0)
        mean = torch.zeros_like(self.best).index_add_(0, at, loss.to(self.best)) / count.clamp_min(1)
        better = mean < self.best - self.stop.least
        self.best = torch.where(better, mean, self.best)
        self.idle = torch.where(better, 0, self.idle + 1)
        done = torch.zeros_like(better)
        if self.stop.goal > 0:
            done |= self.sure >= self.stop.hold
        if self.stop.patience:
            done |= self.idle >= self.stop.patience
        return done[at]


def rows_of(parameter: Tensor, keep: Tensor) -> Tensor:
    """These rows of a leaf as a leaf of its own."""
    return parameter.detach()[keep].requires_grad_(True)


def follow(optimiser: Any, old: list[Tensor], new: list[Tensor], keep: Tensor) -> None:
    """Let an optimiser go on with `new`, the rows `keep` of `old`, and its memory of these rows."""
    names = dict(zip(map(id, old), new, strict=True))
    for group in optimiser.param_groups:
        group["params"] = [names[id(p)] for p in group["params"]]
    for p, smaller in zip(old, new, strict=True):
        memory = optimiser.state.pop(p, {})
        optimiser.state[smaller] = {
            name: value[keep] if isinstance(value, Tensor) and value.shape == p.shape else value
            for name, value in memory.items()
        }
