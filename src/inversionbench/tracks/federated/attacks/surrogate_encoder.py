"""The attacker who learns an encoder in place of a private one (RVE-PFL, survey 4.6; adaptive, named in no paper).

The client feeds the shared network C a code of its own, so plain gradient matching finds the code. An attacker with
public images of the same classes can train an encoder of the client's kind against C,

    min over E' of the cross entropy of C(mean' + spread exp(log var' / 2) noise)        on public images,

and match through it: J(x) = 1 - cos(g_C(mean'(x)), g) + tv TV(x). This helps as far as codes of encoders that were
trained against one C agree. fit: 0 takes an encoder as it starts, which is what a client in its first round has, with
another seed. Without a private encoder this is the plain attack.

The public pass counts as `encoder_passes`, images of C with their gradient, not among the gradient evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch
    from torch import nn

    from inversionbench.gradients.problem import Problem
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class SurrogateEncoder(Attack):
    """fit, size, fit_rate: steps, images a step and Adam's rate of the surrogate. The others are those of
    `inverting_gradients`.
    """

    id = "surrogate_encoder"
    level = "GR"
    adapts = "inverting_gradients"
    budget = ("steps", "restarts")

    steps: Count = 300
    rate: Positive = 0.1
    tv: NonNegative = 0.01
    restarts: Count = 1
    fit: Count = 300
    size: Count = 32
    fit_rate: Positive = 3e-3
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.gradients.problem import labels_of, read

        problem = read(oracle)
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        told = knowledge.defense
        encoder, agreement = None, None
        if told.get("encoder") == "private":
            encoder, agreement = self.learn(problem, knowledge, rng)
        result = self.through(problem, labels, encoder, rng)
        result.notes |= {"labels": source, "adaptive": True}
        if agreement is not None:
            result.notes["encoder_accuracy"] = agreement
            result.cost["encoder_passes"] = self.fit * self.size
        return result

    def learn(self, problem: Problem, knowledge: Knowledge, rng: torch.Generator) -> tuple[nn.Module, float]:
        """The surrogate, and the shared network's accuracy on public images behind it."""
        import torch
        from torch.nn import functional as F

        from inversionbench.core.errors import AccessDenied
        from inversionbench.defenses.architecture_enhancement._encoder import Encoder

        told, public = knowledge.defense, knowledge.public
        x, y = public.images().to(problem.where), public.labels().to(problem.where)
        if bool((y < 0).any()):
            raise AccessDenied("surrogate_encoder learns from public images with labels of the task, and here are none")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
            encoder = Encoder(problem.model.shape, told["width"], told["hidden"]).to(problem.where)
        body = problem.model.body.requires_grad_(False)
        optimiser = torch.optim.Adam(encoder.parameters(), self.fit_rate)
        for _ in range(self.fit):
            index = torch.randint(len(x), (self.size,), generator=rng).to(problem.where)
            mean, log_var = encoder(x[index])
            noise = torch.randn(mean.shape, generator=rng).to(mean.device)
            loss = F.cross_entropy(body(mean + told["spread"] * (log_var / 2).exp() * noise), y[index])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        encoder.requires_grad_(False)
        with torch.no_grad():
            return encoder, float((body(encoder(x)[0]).argmax(1) == y).float().mean())

    def through(
        self, problem: Problem, labels: torch.Tensor, encoder: nn.Module | None, rng: torch.Generator
    ) -> Reconstruction:
        """Gradient matching with images that enter the shared network through an encoder (None: as they are)."""
        from inversionbench.gradients.composed import Descent, Parts, compose
        from inversionbench.gradients.matching import objective
        from inversionbench.gradients.objectives import Matching
        from inversionbench.gradients.simulate import simulator

        client = simulator(problem.model, problem.protocol, self.form)
        pixels = problem.model.front.pixels

        def code(x: torch.Tensor) -> torch.Tensor:
            return x if encoder is None else encoder(pixels(x).flatten(0, 1))[0].view_as(x)

        def build(part: slice, y: torch.Tensor) -> Parts:
            observed = client.layout.flatten(problem.of(part).update).repeat(self.restarts, 1)
            return Parts(objective(lambda x, y: client(code(x), y), Matching(observed), y, self.tv))

        return compose(problem, labels, client, Descent(self.steps, self.rate, self.restarts), build, rng)
