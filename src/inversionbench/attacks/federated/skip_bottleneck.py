"""The attacker who knows PRECODE's bottleneck (Balunovic et al., ICLR 2022; Scheliga et al., arXiv 2208.04767).

Two ways around the noise, chosen by what the network is:

exact  the first layer is fully connected on the pixels, with a bias, and the batch is one image: its input is
       db^T dW / |db|^2, whatever follows it. No search.
skip   else: Inverting Gradients on the tensors in front of the bottleneck alone, the attacker's own pass without
       noise (`match: skip_vb`).

Without a bottleneck the second way is the plain attack; the first one works against any network of that kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.attacks.base import Knowledge, Reconstruction
from inversionbench.attacks.federated.inverting_gradients import InvertingGradients

if TYPE_CHECKING:
    import torch

    from inversionbench.attacks.federated._problem import Problem
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class SkipBottleneck(InvertingGradients):
    """exact: whether the exact way is tried first. The others are those of `inverting_gradients`."""

    id = "skip_bottleneck"
    adapts = "inverting_gradients"

    steps: int = 300
    rate: float = 0.1
    tv: float = 0.01
    restarts: int = 1
    signed: bool = True
    boxed: bool = True
    init: str = "randn"
    objective: str = "cosine"
    match: str = "skip_vb"
    schedule: str = "drops"
    label_rule: str = "bias_corrected"
    form: str = "auto"
    precision: str = "float32"
    exact: bool = True

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.attacks.federated._problem import labels_of, read

        problem = read(oracle)
        if not self.exact or not first_is_linear(problem):
            result = self.search(oracle, knowledge, rng, "client")
            result.notes["route"] = "skip"
            return result
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        notes = {"labels": source, "adaptive": True, "route": "exact", "bottleneck": "bottleneck" in knowledge.defense}
        return Reconstruction(exact(problem), labels, cost={"gradient_evaluations": 0}, notes=notes)


def first_is_linear(problem: Problem) -> bool:
    """Whether one image alone enters a linear layer with a bias that reads the pixels, in one step."""
    (_, dw), (_, db) = list(problem.update.items())[:2]
    pixels = problem.shape[2] * problem.shape[3] * problem.shape[4]
    flat = dw.ndim == 3 and dw.shape[2] == pixels and db.shape == dw.shape[:2]
    return flat and problem.protocol.batch_size == 1 and len(problem.protocol.steps) == 1


def exact(problem: Problem) -> torch.Tensor:
    """Pixels (clients, 1, c, h, w) from the gradient of the first layer."""
    import torch

    from inversionbench.attacks.federated._analytic import blend

    dw, db = list(problem.update.values())[:2]
    x = torch.stack([blend(w, b) for w, b in zip(dw, db)]).float().view(problem.shape)
    return problem.model.front.pixels(x).nan_to_num(0.5).clamp(0, 1)
