"""Gradient matching with L-BFGS, for DLG and iDLG: images, and label logits where labels are unknown.

Variables of a trial are one vector: batch * (c*h*w + classes, or c*h*w alone). Trials that have converged or
left the finite numbers are taken out, so that the others do not pay for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inversionbench.core.attack import Reconstruction
from inversionbench.gradients.inits import start
from inversionbench.gradients.lbfgs import LBFGS, Closure
from inversionbench.gradients.matching import BUDGET, answer
from inversionbench.gradients.objectives import Matching
from inversionbench.gradients.problem import Problem
from inversionbench.gradients.search import Best, Found, chunks, milestones
from inversionbench.gradients.simulate import memory, simulator


@dataclass(frozen=True)
class Settings:
    """steps: outer iterations of up to 20 closures. stop: the squared distance that counts as converged."""

    steps: int
    rate: float
    history: int
    restarts: int
    stop: float
    init: str
    form: str


class Variables:
    """Between vectors (trials, n) and images (trials, batch, c, h, w) with label probabilities."""

    def __init__(self, shape: tuple[int, ...], classes: int, labels: Tensor | None):
        self.batch, self.image, self.classes, self.labels = shape[0], shape[1:], classes, labels
        self.pixels = self.batch * torch.Size(self.image).numel()

    def split(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Images, and logits (trials, batch, classes; empty where labels are fixed)."""
        return v[:, : self.pixels].unflatten(1, (self.batch, *self.image)), v[:, self.pixels :]

    def labels_of(self, v: Tensor) -> Tensor:
        """Probabilities (trials, batch, classes)."""
        if self.labels is not None:
            return self.labels
        return v[:, self.pixels :].unflatten(1, (self.batch, self.classes)).softmax(dim=2)

    def of(self, index: Tensor | slice) -> Variables:
        labels = None if self.labels is None else self.labels[index]
        return Variables((self.batch, *self.image), self.classes, labels)


def invert(problem: Problem, labels: Tensor | None, s: Settings, rng: torch.Generator) -> Reconstruction:
    """Reconstruct every client's batch; labels (clients, batch) fixed, or None to search for them, too."""
    client = simulator(problem.model, problem.protocol, s.form)
    matching = Matching(client.layout.flatten(problem.update).repeat(s.restarts, 1), "l2")
    fixed = None if labels is None else problem.one_hot(labels).repeat(s.restarts, 1, 1)
    variables = Variables(problem.shape[1:], problem.model.classes, fixed)
    trials = s.restarts * problem.clients
    v = start(s.init, (trials, *problem.shape[1:]), rng, problem.where).flatten(1)
    if labels is None:
        logits = torch.randn(trials, variables.batch * variables.classes, generator=rng).to(v.device)
        v = torch.cat([v, logits], dim=1)
    each = memory(problem.model, variables.batch) + 8 * s.history * v.shape[1]
    parts = chunks(trials, each, BUDGET)
    found = Found.join([
        search(v[p], lambda x, i, p=p: matching.of(p).of(i)(x), variables.of(p), client, s) for p in parts
    ])  # fmt: skip
    images, logits = variables.split(found.x)
    if labels is None:
        chosen = _chosen(found, s.restarts)
        labels = logits.unflatten(1, (variables.batch, variables.classes)).argmax(dim=2)[chosen]
    found.x, found.held = images, [(n, variables.split(x)[0], m) for n, x, m in found.held]
    return answer(problem, found, labels, s.restarts, client, {"chunks": len(parts)})


def _chosen(found: Found, restarts: int) -> Tensor:
    """The trial that `select` takes for each subject."""
    match = found.match.view(restarts, -1)
    return match.argmin(dim=0) * match.shape[1] + torch.arange(match.shape[1], device=match.device)


def search(v: Tensor, match, variables: Variables, client, s: Settings) -> Found:  # type: ignore[no-untyped-def]
    """L-BFGS from v (trials, n). match(g, trials): the objective of some of the trials."""
    best, running, optimiser = Best(v), torch.arange(len(v), device=v.device), LBFGS(v, s.rate, s.history)
    frozen = torch.zeros(len(v), dtype=torch.bool, device=v.device)
    evaluations, held = 0, []
    for t in range(s.steps):
        before = int(optimiser.evaluations.sum())
        optimiser.step(_closure(match, running, variables, client, best))
        evaluations += int(optimiser.evaluations.sum()) - before
        if t + 1 in milestones(s.steps):
            held.append((evaluations, best.x.clone(), best.match.clone()))
        lost = ~(torch.isfinite(optimiser.x).all(dim=1) & torch.isfinite(optimiser.loss))
        frozen[running[lost]] = True
        keep = ~lost & (best.match[running] >= s.stop)
        if not bool(keep.all()):
            index = keep.nonzero()[:, 0]
            optimiser, variables, running = optimiser.of(index), variables.of(index), running[index]
        if not len(running):
            break
    return Found(best.x, best.objective, best.match, evaluations, frozen, held)


def _closure(match, running: Tensor, variables: Variables, client, best: Best) -> Closure:  # type: ignore[no-untyped-def]
    """Losses and gradients of the trials `running`."""

    def closure(v: Tensor) -> tuple[Tensor, Tensor]:
        whole = v.clone().requires_grad_()
        images, _ = variables.split(whole)
        loss = match(client(images, variables.labels_of(whole)), running)
        (gradient,) = torch.autograd.grad(loss.sum(), whole)
        loss = loss.detach()
        better = loss < best.match[running]
        rows = running[better]
        best.x[rows] = whole.detach()[better]
        best.match[rows] = best.objective[rows] = loss[better]
        return loss, gradient

    return closure
