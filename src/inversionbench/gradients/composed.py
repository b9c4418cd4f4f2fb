"""A search over pixels put together from parts, for attacks that change more than settings of `_matching`.

`compose` draws the starts, keeps all restarts of a client in one tensor (attacks may compare them), runs the
descent and selects; an attack gives the objective and what happens around each step.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import torch
from torch import Tensor

from inversionbench.core.attack import Reconstruction
from inversionbench.gradients.inits import start
from inversionbench.gradients.matching import BUDGET, answer
from inversionbench.gradients.problem import Problem
from inversionbench.gradients.search import Evaluate, Found, adam, chunks, milestones
from inversionbench.gradients.simulate import Simulator, memory


@dataclass(frozen=True)
class Descent:
    """How x moves. restarts: searches per client, the lowest matching loss wins. gradients: how many dummy
    gradients one evaluation of the objective takes (one per observed round), for the count.
    """

    steps: int
    rate: float
    restarts: int = 1
    signed: bool = True
    boxed: bool = True
    init: str = "randn"
    schedule: str = "drops"
    warm_up: int = 0
    gradients: int = 1


@dataclass(frozen=True)
class Parts:
    """What an attack adds: meanings as in `_search.adam`. Trials are in the order (restart, client)."""

    evaluate: Evaluate
    after: Callable[[Tensor, int], None] | None = None
    direction: Callable[[Tensor, int], Tensor] | None = None
    fresh: Container[int] = ()


Build = Callable[[slice, Tensor], Parts]  # clients, labels (trials, batch, classes) -> parts


def compose(
    problem: Problem, labels: Tensor, client: Simulator, d: Descent, build: Build, rng: torch.Generator
) -> Reconstruction:
    """Reconstruct every client's batch with labels (clients, batch)."""
    x = start(d.init, (d.restarts * problem.clients, *problem.shape[1:]), rng, problem.where)
    x = x.unflatten(0, (d.restarts, problem.clients))
    each = d.gradients * d.restarts * memory(problem.model, problem.protocol.batch_size)
    box = problem.model.front.box if d.boxed else None
    runs = chunks(problem.clients, each, BUDGET)
    found = []
    for part in runs:
        own = build(part, problem.one_hot(labels[part]).repeat(d.restarts, 1, 1))
        found.append(adam(
            x[:, part].flatten(0, 1), own.evaluate, d.steps, d.rate, d.signed, box, d.schedule, d.warm_up,
            own.after, own.direction, own.fresh, milestones(d.steps),
        ))  # fmt: skip
    return answer(problem, _join(found, d), labels, d.restarts, client, {"chunks": len(runs)})


def _join(parts: list[Found], d: Descent) -> Found:
    """Runs over different clients as one, in the order (restart, client), with every gradient counted."""

    def side(tensors: list[Tensor]) -> Tensor:
        return torch.cat([t.unflatten(0, (d.restarts, -1)) for t in tensors], dim=1).flatten(0, 1)

    held = [
        (d.gradients * sum(h[0] for h in same), side([h[1] for h in same]), side([h[2] for h in same]))
        for same in zip(*(p.held for p in parts))
    ]
    return Found(
        side([p.x for p in parts]),
        side([p.objective for p in parts]),
        side([p.match for p in parts]),
        d.gradients * sum(p.evaluations for p in parts),
        side([p.frozen for p in parts]),
        held,
    )
