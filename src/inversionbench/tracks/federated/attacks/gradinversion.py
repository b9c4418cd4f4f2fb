"""GradInversion (survey 3.1, and section 5 for its metric IIP; Yin et al., CVPR 2021).

For batches on networks with batch norm. Several seeds search the same batch together; each minimises

    grad * s * sum_l ||g_l(x) - g_l||_2  +  tv * TV(x) + l2 * ||x||_2
    + bn * sum_l (||mean_l(x) - mean_l||_2 + ||var_l(x) - var_l||_2)  +  group * ||x - E||_2,

mean_l, var_l the statistics of what enters batch norm l: those that the client shares, or the server's running
ones. E is what the seeds agree on: their mean per image after each was shifted to the plain mean of all; it is
recomputed every `period` steps from a quarter of the steps on, as a constant. Adam (no sign) with Langevin
noise, the rate rising over the first steps and falling as a cosine. Labels, where hidden, by the smallest entry
of each row of the head's gradient: distinct labels, features that are not negative. The seed with the lowest
gradient distance is returned.

Deviations: s makes the gradient term equal to `grad` at the start (the paper fixes a weight per network); the
paper registers candidates with a learned flow, here by whole-pixel shifts (`reach`; 0: plain mean); 300 steps
of 20,000; 4 seeds. Needs batch norm and statistics, else `AccessDenied`; with bn: 0 it runs anywhere and is
then DLG with Adam and a group term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole

if TYPE_CHECKING:
    import torch

    from inversionbench.gradients.composed import Parts
    from inversionbench.gradients.problem import Problem
    from inversionbench.gradients.simulate import Simulator
    from inversionbench.oracle.base import Oracle

GROUP_START = 1 / 4  # share of the steps before the seeds look at each other


@dataclass(frozen=True)
class GradInversion(Attack):
    """seeds: searches per client. noise: of the Langevin step, times the rate. first: extra weight of the first
    batch norm. warm_up: steps over which the rate rises.
    """

    id = "gradinversion"
    level = "GR"
    budget = ("steps", "seeds")
    published = {"steps": 20000}

    steps: Count = 300
    rate: Positive = 0.1
    seeds: Count = 4
    grad: NonNegative = 1.0
    tv: NonNegative = 1e-4
    l2: NonNegative = 1e-6
    bn: NonNegative = 0.1
    first: NonNegative = 10.0
    group: NonNegative = 0.01
    period: Count = 50
    reach: Whole = 2
    noise: NonNegative = 0.01
    warm_up: Whole = 15
    label_rule: LabelRule = "min_row"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.gradients.composed import Descent, compose
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.simulate import simulator
        from inversionbench.gradients.statistics import granted

        problem = read(oracle)
        if self.bn:
            granted(problem)
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        client = simulator(problem.model, problem.protocol, self.form)

        def build(part: slice, y: torch.Tensor) -> Parts:
            return self._parts(problem.of(part), client, y, rng)

        d = Descent(self.steps, self.rate, self.seeds, signed=False, schedule="cosine", warm_up=self.warm_up)
        result = compose(problem, labels, client, d, build, rng)
        shared = "client" if problem.statistics is not None else "running"
        result.notes |= {"labels": source, "statistics": shared if self.bn else "none"}
        return result

    def _parts(self, problem: Problem, client: Simulator, y: torch.Tensor, rng: torch.Generator) -> Parts:
        """The objective of all seeds of some clients, and what they do between steps."""
        import torch

        from inversionbench.gradients.composed import Parts
        from inversionbench.gradients.consensus import consensus
        from inversionbench.gradients.layerwise import LayerNorms
        from inversionbench.gradients.regularisers import total_variation
        from inversionbench.gradients.schedules import factor
        from inversionbench.gradients.statistics import Prior

        distance = LayerNorms(client.layout.flatten(problem.update).repeat(self.seeds, 1), client.layout)
        prior = Prior(problem, self.seeds, (self.first,)) if self.bn else None
        low, high = problem.model.front.box
        begin = int(GROUP_START * self.steps) if self.group and self.seeds > 1 else self.steps
        agreed: list[torch.Tensor] = []
        scale: list[torch.Tensor] = []

        def evaluate(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            match = distance(client(x, y))
            if not scale:
                mean = match.detach().view(self.seeds, -1).mean(0)
                scale.append((self.grad / mean.clamp_min(1e-30)).repeat(self.seeds))
            loss = scale[0] * match + self.tv * total_variation(x) + self.l2 * x.flatten(1).norm(dim=1)
            if prior is not None:
                loss = loss + self.bn * prior(x)
            if agreed:
                loss = loss + self.group * (x - agreed[-1]).flatten(1).norm(dim=1)
            return loss, match

        def after(x: torch.Tensor, t: int) -> None:
            rate = self.rate * factor("cosine", t, self.steps, self.warm_up)
            x.add_(torch.randn(x.shape, generator=rng).to(x.device), alpha=rate * self.noise).clamp_(low, high)
            if t + 1 >= begin and (t + 1 - begin) % self.period == 0:
                agreed[:] = [consensus(x.unflatten(0, (self.seeds, -1)), self.reach).repeat(self.seeds, 1, 1, 1, 1)]

        return Parts(evaluate, after, fresh=range(begin, self.steps, self.period))
