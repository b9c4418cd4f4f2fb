"""Gradient matching in pixel space: the run that Inverting Gradients and its relatives configure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface

import torch
from torch import Tensor

from inversionbench.core.attack import Reconstruction
from inversionbench.gradients.inits import start
from inversionbench.gradients.layout import Layout
from inversionbench.gradients.objectives import Matching
from inversionbench.gradients.problem import Problem
from inversionbench.gradients.regularisers import total_variation
from inversionbench.gradients.search import Evaluate, Found, adam, chunks, lowest, milestones, select
from inversionbench.gradients.simulate import Simulator, memory, simulator
from inversionbench.models.federated import Victim

BUDGET = 1 << 29  # bytes for the trials of one chunk


class Adaptation(Interface):
    """What an attacker does who knows the defense: the entries to compare, what both updates go through before, the
    model of the client. See `tracks.federated.attacks._adaptive`."""

    def mask(self, observed: Tensor, layout: Layout) -> Tensor | None: ...

    def view(self, layout: Layout) -> Callable[[Tensor], Tensor] | None: ...

    def model(self, model: Victim) -> Victim: ...


@dataclass(frozen=True)
class Settings:
    """What a signed-Adam search over pixels needs; meanings as in `inverting_gradients`."""

    steps: int
    rate: float
    tv: float
    restarts: int
    signed: bool
    boxed: bool
    init: str
    objective: str
    schedule: str
    form: str
    precision: str = "float32"


def invert(
    problem: Problem, labels: Tensor, s: Settings, rng: torch.Generator, adaptation: Adaptation | None = None
) -> Reconstruction:
    """Reconstruct every client's batch with labels (clients, batch); all restarts are trials of one search.
    adaptation: of an attacker who knows the defense.
    """
    model = adaptation.model(problem.model) if adaptation else problem.model
    client = simulator(model, problem.protocol, s.form, s.precision)
    observed = client.layout.flatten(problem.update).repeat(s.restarts, 1)
    known = (adaptation.mask(observed, client.layout), adaptation.view(client.layout)) if adaptation else (None, None)
    matching = Matching(observed, s.objective, *known)
    y = problem.one_hot(labels).repeat(s.restarts, 1, 1)
    x = start(s.init, (s.restarts * problem.clients, *problem.shape[1:]), rng, problem.where)
    parts = chunks(len(x), memory(problem.model, problem.protocol.batch_size), BUDGET)
    box = problem.model.front.box if s.boxed else None
    found = Found.join([
        adam(x[p], objective(client, matching.of(p), y[p], s.tv), s.steps, s.rate, s.signed, box, s.schedule,
             hold=milestones(s.steps))
        for p in parts
    ])  # fmt: skip
    return answer(problem, found, labels, s.restarts, client, {"chunks": len(parts)})


def objective(client: Callable[[Tensor, Tensor], Tensor], matching: Matching, y: Tensor, tv: float) -> Evaluate:
    """x -> (matching loss + tv * TV, matching loss), each (trials,). client: what is sent for images and labels."""

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        match = matching(client(x, y))
        return (match + tv * total_variation(x) if tv else match), match

    return evaluate


def answer(
    problem: Problem, found: Found, labels: Tensor, restarts: int, client: Simulator, notes: dict[str, object]
) -> Reconstruction:
    """The selected restarts as pixels, with what was counted and which form ran."""
    x, match = select(found, restarts)
    failed = ~torch.isfinite(match)

    def pixels(x: Tensor) -> Tensor:
        return problem.model.front.pixels(x).nan_to_num(0.5).clamp(0, 1)

    held = [(n * client.passes, pixels(lowest(x, m, restarts)[0])) for n, x, m in found.held]
    return Reconstruction(
        data=pixels(x),
        labels=labels,
        scores=match.nan_to_num(posinf=torch.finfo(match.dtype).max)[:, None],
        failed=failed,
        checkpoints=held,
        cost={"gradient_evaluations": found.evaluations * client.passes},
        notes={
            "form": client.form,
            "restarts": restarts,
            "trials_frozen": int(found.frozen.sum()),
            "match": [float(m) if torch.isfinite(m) else None for m in match],
            **notes,
        },
    )
