"""Gradient matching through a generator: what searches in its latent and in its feature spaces share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inversionbench.core.attack import Knowledge, Reconstruction
from inversionbench.core.errors import UserError
from inversionbench.gradients.matching import BUDGET, answer, objective
from inversionbench.gradients.objectives import Matching, support
from inversionbench.gradients.problem import Problem
from inversionbench.gradients.search import Evaluate, Found, chunks
from inversionbench.gradients.simulate import memory, simulator
from inversionbench.models.style import StyleGenerator, to_pixels
from inversionbench.models.style_prior import StylePrior

COPIES = 12  # tensors of the size of a block's features that a pass through it keeps


def prior_of(problem: Problem, knowledge: Knowledge) -> StylePrior:
    """The style-based prior that the scenario grants; `UserError` where it makes other images than the victim takes."""
    prior: StylePrior = knowledge.prior
    made = (prior.style.colours, prior.style.resolution, prior.style.resolution)
    if made != problem.model.shape:
        raise UserError(f"the prior makes images of shape {made}, the victim takes {problem.model.shape}: "
                        "train the prior on public data of the victim's data set")  # fmt: skip
    where = next(problem.model.parameters()).device
    prior.generator.to(where)
    return StylePrior(prior.generator, prior.critic, prior.z_dim, prior.p_mean.to(where), prior.p_std.to(where))


def sphere(start: Tensor) -> Callable[[Tensor, int], None]:
    """After each step, the codes (..., k) return to the norm that they had at the start."""
    norm = start.norm(dim=-1, keepdim=True)

    def after(x: Tensor, t: int) -> None:
        x.mul_(norm / x.norm(dim=-1, keepdim=True).clamp_min(1e-12))

    return after


@dataclass
class Matcher:
    """The observed updates and labels of all trials, (restart, client) in order; tv: weight of the variation."""

    problem: Problem
    labels: Tensor
    restarts: int
    tv: float
    kind: str
    match: str
    form: str

    def __post_init__(self) -> None:
        if self.match not in ("plain", "mask"):
            raise UserError(f"match: expected 'plain' or 'mask', got '{self.match}'")
        self.client = simulator(self.problem.model, self.problem.protocol, self.form)
        observed = self.client.layout.flatten(self.problem.update).repeat(self.restarts, 1)
        self.matching = Matching(observed, self.kind, support(observed) if self.match == "mask" else None)
        self.y = self.problem.one_hot(self.labels).repeat(self.restarts, 1, 1)

    @property
    def trials(self) -> int:
        return len(self.y)

    def of(self, part: slice) -> Evaluate:
        """x (trials, batch, c, h, w), normalised, to (matching loss + tv * TV, matching loss)."""
        return objective(self.client, self.matching.of(part), self.y[part], self.tv)

    def parts(self, style: StyleGenerator) -> list[slice]:
        """Trials in runs that fit the memory."""
        values = sum(c * r * r for c, r in zip(style.channels, style.block_resolutions))
        batch = self.problem.protocol.batch_size
        each = memory(self.problem.model, batch) + 4 * COPIES * batch * values
        return chunks(self.trials, each, BUDGET)

    def normalised(self, img: Tensor) -> Tensor:
        """Generator images (trials * batch, c, h, w) as the victim's input (trials, batch, c, h, w)."""
        batch = self.problem.protocol.batch_size
        return self.problem.model.front(to_pixels(img)).unflatten(0, (-1, batch))

    def answer(self, found: Found, decode: Callable[[Tensor], Tensor], notes: dict[str, object]) -> Reconstruction:
        """The best restart of each client; decode: variables (trials, ...) to normalised images."""
        with torch.no_grad():
            found.x = decode(found.x)
            found.held = [(n, decode(x), m) for n, x, m in found.held]
        return answer(self.problem, found, self.labels, self.restarts, self.client, notes)
