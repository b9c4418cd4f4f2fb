"""Inverting Gradients (survey 3.1; Geiping, Bauermeister, Dröge, Moeller, NeurIPS 2020).

The standard gradient inversion attack. From random images x it minimises, for each client's batch,

    J(x) = 1 - <g(x), g> / (||g(x)|| ||g||) + tv * TV(x),

g(x) the client's update simulated on x with the known or recovered labels, g the observed one, both over all
parameters at once, and TV(x) = mean |dx| + mean |dy|. The sign of dJ/dx feeds Adam, x stays inside the image
box, the rate drops to a tenth at 3/8, 5/8 and 7/8 of the steps. With several restarts the one with the lowest
cosine distance is returned. Clients of several local steps are simulated step by step.

Deviations: the best iterate by J is kept rather than the last; 300 steps instead of 4,800 (they gain 0.1 to
0.5 dB more in three times the time at 32 x 32); rate and TV weight per victim, found on public images.
match: what an attacker compares who knows the defense: "mask" only entries that were sent (pruning), "drop_layer" all
but the layer that the defense changed and "columns" its surviving columns (Soteria), "skip_vb" the layers in front of
a variational bottleneck (PRECODE), "coefficients" the frequency coefficients that were sent (pFGD); see `_adaptive`.
"plain" ignores the defense.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Match, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class InvertingGradients(Attack):
    """steps: iterations. rate: of Adam, in normalised space. tv: weight of the total variation. label_rule: how
    labels are recovered where they are not given. form, precision: how trials are batched (see `_simulate`).
    """

    id = "inverting_gradients"
    level = "GR"
    budget = ("steps", "restarts")
    published = {"steps": 4800}

    steps: Count = 300
    rate: Positive = 0.1
    tv: NonNegative = 0.01
    restarts: Count = 1
    signed: bool = True
    boxed: bool = True
    init: Literal["randn", "rand", "zeros", "patterned"] = "randn"
    objective: Literal["cosine", "l2"] = "cosine"
    match: Match = "plain"
    schedule: Literal["drops", "cosine", "ramp", "constant"] = "drops"
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        return self.search(oracle, knowledge, rng, "client")

    def search(
        self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator, view: str
    ) -> Reconstruction:
        """The attack on the updates of `view`, with the labels of the attacked clients."""
        from inversionbench.gradients.matching import Settings, invert
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.tracks.federated.attacks._adaptive import Adapted

        problem = read(oracle)
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        if view != "client":
            problem = read(oracle, view)
        own = {f.name: getattr(self, f.name) for f in fields(Settings)}
        adaptation = Adapted(self.match, knowledge.defense) if self.match != "plain" else None
        result = invert(problem, labels, Settings(**own), rng, adaptation)
        result.notes |= {"labels": source, **({"adaptive": True} if adaptation else {})}
        return result
