"""AGIC, approximate gradient inversion for federated averaging (survey 3.1; Xu et al., SRDS 2022). Reconstruction.

A client that sends the difference of weights after U local steps is not simulated. Its update, divided by
-(rate U), is taken for the gradient of one combined batch of all its N images at the weights that it started
from, which is exact as the local rate goes to 0. So one gradient per iteration does, whatever U is, and the
attacker need not know which images were in which step. Several rounds t with the same images share the dummies:

    D(x) = mean over t of 1 - sum_l w_l <g_l(x; t), g_l(t)> / sqrt(sum_l w_l |g_l(x; t)|^2 sum_l w_l |g_l(t)|^2),

with layer weights w_l that grow from input to output. Signed Adam on D + tv * TV, as `inverting_gradients`.

Read: the abstract and the survey only. Decided here: w_l = l / P for layer l of P (weight and bias alike),
normalised to mean 1 (`exponential` and `flat` to compare); labels from the mean update of the rounds; every
step and every round counts as a gradient evaluation. Deviations: 300 steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Agic(Attack):
    """rounds: observed rounds that are used, the last ones; 0: all. weights: schedule of the layers. The others
    are those of `inverting_gradients`.
    """

    id = "agic"
    level = "GR"
    budget = ("steps", "restarts")

    steps: Count = 300
    rate: Positive = 0.1
    tv: NonNegative = 0.01
    restarts: Count = 1
    rounds: Whole = 0
    weights: Literal["linear", "exponential", "flat"] = "linear"
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.gradients.composed import Descent, Parts, compose
        from inversionbench.gradients.layerwise import depth_weights
        from inversionbench.gradients.objectives import Matching
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.regularisers import total_variation
        from inversionbench.gradients.simulate import simulator

        last = read(oracle)
        count = self.rounds or last.protocol.rounds
        problems = [last, *(read(oracle, back=back) for back in range(1, count))]
        combined = replace(last.protocol, sends="gradient", epochs=1, local_batch=0)
        clients = [simulator(p.model, combined, self.form) for p in problems]
        mean = {n: sum(p.update[n] for p in problems) / count for n in last.update}
        labels, source = labels_of(replace(last, update=mean), knowledge, self.label_rule, rng)  # type: ignore[arg-type]
        layout = clients[0].layout
        weights = depth_weights(layout, self.weights).sqrt()[None].to(last.where)
        observed = [layout.flatten(p.update) for p in problems]

        def build(part: slice, y: torch.Tensor) -> Parts:
            rows = [g[part].repeat(self.restarts, 1) for g in observed]
            matchings = [Matching(g, mask=weights.expand_as(g)) for g in rows]

            def evaluate(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                match = sum((m(c(x, y)) for m, c in zip(matchings, clients)), x.new_zeros(len(x))) / count
                return match + self.tv * total_variation(x), match

            return Parts(evaluate)

        d = Descent(self.steps, self.rate, self.restarts, gradients=count)
        result = compose(last, labels, clients[0], d, build, rng)
        result.notes |= {"labels": source, "rounds": count, "layer_weights": self.weights}
        return result
