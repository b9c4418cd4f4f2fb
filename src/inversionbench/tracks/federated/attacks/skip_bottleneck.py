"""The attacker who knows what a defense put behind the first layers: PRECODE's bottleneck (Balunovic et al., ICLR 2022;
Scheliga et al., arXiv 2208.04767), or the student of statistical distillation.

Two ways around it, chosen by what the network is:

exact  the first layer is fully connected on the pixels, with a bias, and the batch is one image: its input is
       db^T dW / |db|^2, whatever follows it. No search. Where it reads means of blocks, as the defense says (`pool`),
       the answer is as coarse as they are.
skip   else: Inverting Gradients on the tensors in front of the bottleneck alone, the attacker's own pass without
       noise (`match: skip_vb`).

Without a bottleneck the second way is the plain attack; the first one works against any network of that kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.core.attack import Knowledge, Match, Reconstruction
from inversionbench.tracks.federated.attacks.inverting_gradients import InvertingGradients

if TYPE_CHECKING:
    import torch

    from inversionbench.gradients.problem import Problem
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class SkipBottleneck(InvertingGradients):
    """exact: whether the exact way is tried first. The others are those of `inverting_gradients`."""

    id = "skip_bottleneck"
    adapts = "inverting_gradients"

    match: Match = "skip_vb"
    exact: bool = True

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.gradients.problem import labels_of, read

        problem = read(oracle)
        pool = int(knowledge.defense.get("pool", 1))
        if not self.exact or not first_is_linear(problem, pool):
            result = self.search(oracle, knowledge, rng, "client")
            result.notes["route"] = "skip"
            return result
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        notes = {"labels": source, "adaptive": True, "route": "exact", "bottleneck": "bottleneck" in knowledge.defense}
        return Reconstruction(exact(problem, pool), labels, cost={"gradient_evaluations": 0}, notes=notes)


def first_is_linear(problem: Problem, pool: int = 1) -> bool:
    """Whether one image alone enters a linear layer with a bias, in one step, that reads its pixels or the means of its
    blocks of pool x pool pixels."""
    dw, db = list(problem.update.values())[:2]
    _, _, c, h, w = problem.shape
    flat = dw.ndim == 3 and dw.shape[2] * pool**2 == c * h * w and db.shape == dw.shape[:2]
    return flat and h % pool == w % pool == 0 and problem.protocol.batch_size == 1 and len(problem.protocol.steps) == 1


def exact(problem: Problem, pool: int = 1) -> torch.Tensor:
    """Pixels (clients, 1, c, h, w) from the gradient of the first layer, equal in every block."""
    import torch

    from inversionbench.gradients.analytic import blend

    n, _, c, h, w = problem.shape
    dw, db = list(problem.update.values())[:2]
    x = torch.stack([blend(*layer) for layer in zip(dw, db)]).float().view(n, 1, c, h // pool, w // pool)
    x = x.repeat_interleave(pool, dim=3).repeat_interleave(pool, dim=4)
    return problem.model.front.pixels(x).nan_to_num(0.5).clamp(0, 1)
