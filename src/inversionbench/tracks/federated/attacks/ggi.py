"""GGI, generative gradient inversion (survey 3.1; Zhu et al., DOCS 2024). Reconstruction.

Instead of pixels, the latent vectors of a generator are searched, one per image of the batch. The generator is
trained on public data only and stays as it is:

    J(z) = D(g(G(z)), g) + weight * mean(max(0, z^2 - 1)) + tv * TV(G(z)),   z ~ N(0, I) at the start,

D the cosine distance of dummy and observed gradient (or `l2`). Adam without sign, rate rising over the first
5 % of the steps and falling along a cosine over the last 75 %. Of the restarts the one with the lowest D is
returned. Labels are given or recovered from the head's gradient before the search.

The paper could not be read; the survey gives the idea (latents of a pre-trained generator). Decided here: the
objective's two regularisers, the schedule, the style-based prior P4 (unconditional: labels enter through the
matching loss alone). `sphere`: z returns to its norm at the start after every step, as in GIFD's latent stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Ggi(Attack):
    """steps: iterations of every restart. rate: of Adam on z. weight: of the penalty on z. tv: of the total
    variation. match: "mask" compares only the entries that were sent.
    """

    id = "ggi"
    level = "GR"
    prior: ClassVar[str] = "style"
    budget = ("steps", "restarts")

    steps: Count = 300
    rate: Positive = 0.03
    weight: NonNegative = 0.1
    tv: NonNegative = 1e-4
    restarts: Count = 4
    sphere: bool = False
    objective: Literal["cosine", "l2"] = "cosine"
    match: Literal["plain", "mask"] = "plain"
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.gradients.latent import Matcher, prior_of, sphere
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.search import Found, adam, milestones

        problem = read(oracle)
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        style = prior_of(problem, knowledge).style
        matcher = Matcher(problem, labels, self.restarts, self.tv, self.objective, self.match, self.form)
        z = torch.randn(matcher.trials, problem.protocol.batch_size, style.z_dim, generator=rng).to(labels.device)

        def decode(z: torch.Tensor) -> torch.Tensor:
            return matcher.normalised(style.synthesis(style.mapping(z.flatten(0, 1))))

        def descend(part: slice) -> Found:
            compare = matcher.of(part)

            def evaluate(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                total, match = compare(decode(z))
                return total + self.weight * (z.square() - 1).clamp_min(0).flatten(1).mean(1), match

            return adam(z[part], evaluate, self.steps, self.rate, signed=False, schedule="ramp",
                        after=sphere(z[part]) if self.sphere else None, hold=milestones(self.steps))  # fmt: skip

        parts = matcher.parts(style)
        found = Found.join([descend(part) for part in parts])
        return matcher.answer(found, decode, {"labels": source, "chunks": len(parts)})
