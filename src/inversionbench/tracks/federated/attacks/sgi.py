"""SGI, stepwise gradient inversion (survey 3.1; Ye, Luo, Zhou, Tang, AAAI 2024).

Labels first, with repeats: counts per class by an evolutionary search on the order statistics of features that
vary least over a few public images (`_evolution`). Then the images, from the last layers to the first:

    D_t(x) = 1 - cosine of the entries m of g(x) and g that are active,

m a fresh random mask at each evaluation that keeps a share `keep` of all parameter tensors from number
start(t) on; start falls in `stages` steps from `first` to `last` (shares of the number of tensors) over the
first `ramp` of the search. Total variation joins after a fifth of the steps, the batch-norm prior after a
third. Adam is fed with a quantised gradient, 0.8 * clamp(round(2 u / median|u|) / 2, -1, 1) + 0.2 * sign(u),
doubled in the first 1/150 of the steps.

Deviations: 300 steps of 15,000 with the switches at the same shares; the median is taken per search; the best
iterate starts anew at every switch. bn is 0 here (paper 1e-4): set it for victims with batch norm; where no
statistics are to be had it raises `AccessDenied`. A random mask gives a noisy matching loss: the restart and the
iterate with the lowest masked value win.

Measured (small ConvNet, 32 x 32 pixels, 4 clients of 4 photographs, labels known, 300 steps, one seed): 17.8 dB with
stages (18.5 after 900 steps), 17.6 with all tensors from the start, `inverting_gradients` 18.3. On eight tensors the
stages neither cost nor gain anything; that they gain on deep networks, as the paper says, is not shown here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, PositiveShare, Share, Whole

if TYPE_CHECKING:
    import torch

    from inversionbench.gradients.composed import Parts
    from inversionbench.gradients.problem import Problem
    from inversionbench.gradients.simulate import Simulator
    from inversionbench.oracle.base import Oracle

STEPS = ("quantised", "sign")
MULTIPLIERS = (1.3, 3.0)  # of the first two batch norms
DOUBLED = 100 / 15000  # share of the steps with doubled gradients


@dataclass(frozen=True)
class Sgi(Attack):
    """images, ranks: public images and order statistics for the labels (ranks 0: max(8, width / 25)). step:
    "quantised" or "sign". label_rule: "evolution", or a rule of `_labels`. The others: see the module.
    """

    id = "sgi"
    level = "GR"
    budget = ("steps", "restarts")
    published = {"steps": 15000}

    steps: Count = 300
    rate: Positive = 0.1
    tv: NonNegative = 0.005
    tv_start: Share = 0.2
    bn: NonNegative = 0.0
    bn_start: Share = 0.33
    keep: PositiveShare = 0.7
    first: NonNegative = 0.9
    last: NonNegative = 0.23
    stages: Count = 8
    ramp: Share = 0.3
    step: Literal["quantised", "sign"] = "quantised"
    restarts: Count = 1
    images: Count = 64
    ranks: Whole = 0
    label_rule: LabelRule | Literal["evolution"] = "evolution"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.core.errors import UserError, suggest
        from inversionbench.gradients.composed import Descent, compose
        from inversionbench.gradients.evolution import labels_by_evolution
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.simulate import simulator
        from inversionbench.gradients.statistics import granted

        if self.step not in STEPS:
            raise UserError(f"sgi.step: '{self.step}': {suggest(self.step, STEPS)}")
        problem = read(oracle)
        if self.bn:
            granted(problem)
        if self.label_rule == "evolution" and "labels" not in knowledge:
            labels = labels_by_evolution(problem, knowledge.public, self.images, self.ranks, rng)
            source = "evolution"
        else:
            rule = "bias_corrected" if self.label_rule == "evolution" else self.label_rule
            labels, source = labels_of(problem, knowledge, rule, rng)
        client = simulator(problem.model, problem.protocol, self.form)

        def build(part: slice, y: torch.Tensor) -> Parts:
            return self._parts(problem.of(part), client, y, rng)

        result = compose(problem, labels, client, Descent(self.steps, self.rate, self.restarts), build, rng)
        result.notes["labels"] = source
        return result

    def _parts(self, problem: Problem, client: Simulator, y: torch.Tensor, rng: torch.Generator) -> Parts:
        """The objective that changes from stage to stage, and the quantised step."""
        import torch

        from inversionbench.gradients.composed import Parts
        from inversionbench.gradients.layerwise import first_active, stage_starts
        from inversionbench.gradients.objectives import Matching
        from inversionbench.gradients.regularisers import total_variation
        from inversionbench.gradients.statistics import Prior

        layout = client.layout
        observed = layout.flatten(problem.update).repeat(self.restarts, 1)
        starts = stage_starts(len(layout.names), self.first, self.last, self.stages)
        begins = [int(i * self.ramp * self.steps / len(starts)) for i in range(len(starts))]
        tv_from, bn_from = int(self.tv_start * self.steps), int(self.bn_start * self.steps)
        prior = Prior(problem, self.restarts, MULTIPLIERS) if self.bn else None
        plain = Matching(observed) if starts[-1] == 1 and self.keep >= 1 else None
        now = [0]

        def matching(t: int) -> Matching:
            first = starts[sum(t >= b for b in begins) - 1]
            if plain is not None and first == 1:
                return plain
            mask = first_active(layout, first).to(observed.device).expand_as(observed)
            if self.keep < 1:
                mask = mask * (torch.rand(observed.shape, generator=rng) < self.keep).to(observed.device)
            return Matching(observed, mask=mask)

        def evaluate(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            t = now[0]
            match = matching(t)(client(x, y))
            loss = match + self.tv * total_variation(x) if self.tv and t >= tv_from else match
            if prior is not None and t >= bn_from:
                loss = loss + self.bn * prior(x)
            return loss, match

        def after(x: torch.Tensor, t: int) -> None:
            now[0] = t + 1

        def direction(u: torch.Tensor, t: int) -> torch.Tensor:
            return quantised(u) * (2 if t < DOUBLED * self.steps else 1)

        fresh = {*begins[1:], *([tv_from] if self.tv else []), *([bn_from] if self.bn else [])}
        return Parts(evaluate, after, direction if self.step == "quantised" else None, fresh)


def quantised(u: torch.Tensor) -> torch.Tensor:
    """0.8 * clamp(round(2 u / median|u|) / 2, -1, 1) + 0.2 * sign(u), the median over each trial."""
    median = u.abs().flatten(1).median(dim=1).values + 1e-10
    steps = (2 * u / median.view(-1, *[1] * (u.ndim - 1))).round().div(2).clamp(-1, 1)
    return 0.8 * steps + 0.2 * u.sign()
