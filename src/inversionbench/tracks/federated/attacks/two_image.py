"""The attacker who knows that two images were mixed (VRM, mix-up; survey 4.1).

The client's gradient is taken at w x1 + (1 - w) x2 under the label w y1 + (1 - w) y2. For one image per client:

1. label: db of the last layer is p - y with p the softmax outputs, so y = p - db with p the mean output on public
   images; the partner's class is the largest entry besides the own class, w the own class's share of the two.
2. search: Inverting Gradients over both images, matching the gradient of their mix under that label, with total
   variation on both.
3. answer: what the mix says of x1 when both images are draws around the public mean m with equal variance,
   x1 = m + w / (w^2 + (1 - w)^2) (mix - m). The gradient depends on the mix alone, so nothing separates the two
   images but what is known of images.

A patch has no such answer and comes back as the mix. Without mixing (w = 1) this is the plain attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch

    from inversionbench.gradients.problem import Problem
    from inversionbench.oracle.base import Oracle

LOOK = 64  # public images whose mean output stands for p


@dataclass(frozen=True)
class TwoImage(Attack):
    """The parameters of `inverting_gradients`."""

    id = "two_image"
    level = "GR"
    adapts = "inverting_gradients"
    budget = ("steps", "restarts")

    steps: Count = 300
    rate: Positive = 0.1
    tv: NonNegative = 0.01
    restarts: Count = 1
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from dataclasses import replace

        from inversionbench.core.errors import AccessDenied
        from inversionbench.gradients.composed import Descent, Parts, compose
        from inversionbench.gradients.matching import objective
        from inversionbench.gradients.objectives import Matching
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.simulate import simulator

        problem = read(oracle)
        if problem.protocol.batch_size != 1 or len(problem.protocol.steps) != 1:
            raise AccessDenied("two_image reads the mixed label of one image in one step, not of a larger batch")
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        told = knowledge.defense
        soft, share = mixed_labels(problem, labels[:, 0], knowledge, told.get("member", "mix") != "gauss")
        client = simulator(problem.model, problem.protocol, self.form)
        wide = replace(problem, protocol=replace(problem.protocol, batch_size=2))

        def build(part: slice, _: torch.Tensor) -> Parts:
            observed = client.layout.flatten(problem.of(part).update).repeat(self.restarts, 1)
            y, w = soft[part][:, None].repeat(self.restarts, 1, 1), share[part].repeat(self.restarts)
            return Parts(objective(lambda x, y: client(mix(x, w), y), Matching(observed), y, self.tv))

        d = Descent(self.steps, self.rate, self.restarts)
        result = compose(wide, labels.repeat(1, 2), client, d, build, rng)
        both = mix(result.data, share)
        mean = knowledge.mean_image.to(both.device)
        result.data = both if told.get("member") == "patch" else unmix(both, share, mean)
        result.labels, result.checkpoints = labels, []
        result.notes |= {"labels": source, "adaptive": True, "shares": share.tolist()}
        return result


def mix(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """x (n, 2, c, h, w), w (n,) -> (n, 1, c, h, w)."""
    w = w.view(-1, 1, 1, 1)
    return (w * x[:, 0] + (1 - w) * x[:, 1])[:, None]


def unmix(mixed: torch.Tensor, w: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """The expected own image (n, 1, c, h, w) of a mix of two images of equal variance around `mean` (c, h, w).

    >>> import torch
    >>> unmix(torch.tensor([0.6]).view(1, 1, 1, 1, 1), torch.tensor([0.5]), torch.tensor(0.5)).item()
    0.6000000238418579
    """
    gain = (w / (w.square() + (1 - w).square())).view(-1, 1, 1, 1, 1)
    return (mean + gain * (mixed - mean)).clamp(0, 1)


def mixed_labels(
    problem: Problem, own: torch.Tensor, knowledge: Knowledge, mixing: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft labels (clients, classes) and the share of the own class (clients,), from the bias of the last layer."""
    import torch
    from torch.nn import functional as F

    clients = torch.arange(problem.clients, device=problem.where)
    hard = F.one_hot(own, problem.model.classes).float()
    db = problem.update.get(problem.model.head_names[1])
    if not mixing or db is None:
        return hard, torch.ones(problem.clients, device=problem.where)
    with torch.no_grad():
        p = problem.model(knowledge.public.images()[:LOOK].to(problem.where)).softmax(dim=1).mean(0)
    y = (p - db).clamp_min(0)
    partner = y.scatter(1, own[:, None], -1.0).argmax(1)
    mine, other = y[clients, own], y[clients, partner]
    share = (mine / (mine + other).clamp_min(1e-12)).clamp(0.05, 1.0)
    soft = share[:, None] * hard + (1 - share)[:, None] * F.one_hot(partner, problem.model.classes).float()
    return soft, share
