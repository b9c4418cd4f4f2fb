"""The attacker who knows the noise (Balunovic, Dimitrov, Staab, Vechev, ICLR 2022: the Bayes optimal adversary).

It looks for images with a high posterior, log p(update | x) + log p(x):

- likelihood: squared error for Gaussian noise, absolute error for Laplace noise, both against the clipped gradient
  (every example's, where the client clips every example's), over the entries that were sent (`_posterior`).
- prior: total variation. Its weight is not known, so it is learnt: `tune` public images go through the client's
  clipping and noise and are attacked with each of `weights`; the weight with the lowest squared error is taken.
- answer: the mean over `draws` searches from different starts, an estimate of the posterior mean, which is what
  minimises the squared error where the noise leaves several answers.

Signed Adam in the image box, as in `inverting_gradients`. All searches count as gradient evaluations. Without noise
this is the plain attack with a squared error, a tuned prior and averaged starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole

if TYPE_CHECKING:
    import torch

    from inversionbench.gradients.posterior import Channel
    from inversionbench.gradients.problem import Problem
    from inversionbench.gradients.simulate import Simulator
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Bayes(Attack):
    """draws: searches that are averaged. weights: of the total variation, to choose from. tune: public batches by
    which it is chosen. The others are those of `inverting_gradients`.
    """

    id = "bayes"
    level = "GR"
    adapts = "inverting_gradients"
    budget = ("steps",)

    steps: Count = 300
    rate: Positive = 0.1
    draws: Count = 4
    weights: tuple[NonNegative, ...] = (0.01, 0.03, 0.1)
    tune: Whole = 4
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.gradients.posterior import Channel
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.simulate import simulator

        problem = read(oracle)
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        client = simulator(problem.model, problem.protocol, self.form)
        channel = Channel.of(knowledge.defense, problem.protocol)
        errors, spent = self._tune(problem, client, channel, knowledge, rng)
        weight = min(errors, key=errors.__getitem__)
        found = [self._search(problem, labels, client, channel, weight, rng) for _ in range(self.draws)]
        result = found[0]
        result.data = torch.stack([f.data for f in found]).mean(0)
        result.checkpoints = []
        result.cost = {"gradient_evaluations": spent + sum(f.cost["gradient_evaluations"] for f in found)}
        result.notes |= {
            "labels": source, "adaptive": True, "noise": channel.kind, "noise_scale": channel.scale,
            "clip": channel.clip, "tv": weight, "tuning_mse": {str(w): e for w, e in errors.items()},
        }  # fmt: skip
        return result

    def _tune(
        self, problem: Problem, client: Simulator, channel: Channel, knowledge: Knowledge, rng: torch.Generator
    ) -> tuple[dict[float, float], int]:
        """Mean squared error of every weight on public images sent through the same channel; evaluations used."""
        import torch

        if len(self.weights) == 1:
            return {self.weights[0]: 0.0}, 0
        batch, front, public = problem.protocol.batch_size, problem.model.front, knowledge.public
        index = torch.randint(len(public), (self.tune * batch,), generator=rng).numpy()
        x = public.images(index).to(problem.where).unflatten(0, (self.tune, batch))
        labels = torch.randint(problem.model.classes, (self.tune, batch), generator=rng).to(problem.where)
        with torch.no_grad():
            sent = channel.noisy(channel.mean(client, front(x), problem.one_hot(labels)), rng)
        trial = replace(problem, update=client.layout.unflatten(sent))
        errors, spent = {}, 0
        for weight in self.weights:
            found = self._search(trial, labels, client, channel, weight, rng)
            errors[weight] = float((found.data - x).square().mean())
            spent += found.cost["gradient_evaluations"]
        return errors, spent

    def _search(
        self, problem: Problem, labels: torch.Tensor, client: Simulator, channel: Channel, weight: float,
        rng: torch.Generator,
    ) -> Reconstruction:  # fmt: skip
        from inversionbench.gradients.composed import Descent, Parts, compose
        from inversionbench.gradients.objectives import support
        from inversionbench.gradients.posterior import Likelihood
        from inversionbench.gradients.regularisers import total_variation

        def build(part: slice, y: torch.Tensor) -> Parts:
            observed = client.layout.flatten(problem.of(part).update)
            likelihood = Likelihood(observed, support(observed), channel)

            def evaluate(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                match = likelihood(channel.mean(client, x, y))
                return match + weight * total_variation(x), match

            return Parts(evaluate)

        return compose(problem, labels, client, Descent(self.steps, self.rate), build, rng)
