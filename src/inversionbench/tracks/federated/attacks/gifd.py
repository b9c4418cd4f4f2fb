"""GIFD, gradient inversion over feature domains (survey 3.2; Fang et al., ICCV 2023).

A style-based generator is taken apart into blocks, and the search moves from its codes to the features between
the blocks, each stage starting where the one before ended:

    stage 0       codes v of all layers, w = leaky(mean + std v), v ~ N(0, I); after each step every v returns
                  to its norm at the start
    stage i >= 1  the features f_i that block i - 1 hands on, with the codes w and the noise maps of the layers
                  still to come; after each step every one of them is projected, image by image, on the l1 ball
                  around its value at the start of the stage

    J = 1 - cos(g(x), g) + tv * TV(x) + norm * ||x||_2 / (h w)

Adam is made anew for each stage, its rate rises over the first 5 % and falls along a cosine over the last
75 %. The generator's weights never change. The answer is the image of the stage and restart with the lowest
matching loss. With `match: mask` gradients are compared on the entries that were sent.

radii: mean absolute deviation allowed per element of f_1, f_2, ... (the published radii divided by the sizes of
the published features); style_radius and noise_radius: the same for codes and noise. carry_rgb: keep the
colours that earlier blocks have added when a stage starts; the released code drops them, so its image jumps.

Deviations: a stage starts from the best iterate of the one before, not the last; in the latent stage the noise maps
stay those of the prior (the released code moves them there, too); fewer steps and restarts.
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
class Gifd(Attack):
    """stages: feature stages after the latent one. steps: of each stage. latent_rate, rate: of Adam in stage 0
    and later.
    """

    id = "gifd"
    level = "GR"
    prior: ClassVar[str] = "style"
    budget = ("steps", "restarts")

    stages: Count = 3
    steps: Count = 1000
    latent_rate: Positive = 0.1
    rate: Positive = 0.1
    radii: tuple[NonNegative, ...] = (0.244, 0.0916, 0.0305)
    style_radius: NonNegative = 0.1
    noise_radius: NonNegative = 0.1
    tv: NonNegative = 1e-4
    norm: NonNegative = 1e-6
    restarts: Count = 4
    carry_rgb: bool = True
    match: Literal["plain", "mask"] = "plain"
    label_rule: LabelRule = "row_sum"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.core.errors import UserError
        from inversionbench.gradients.features import FeatureSpaceSearch
        from inversionbench.gradients.latent import Matcher, prior_of
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.search import Found

        problem = read(oracle)
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        prior = prior_of(problem, knowledge)
        most = prior.style.n_blocks - 1
        if not 0 <= self.stages <= min(most, len(self.radii)):
            raise UserError(f"gifd.stages: expected 0 to {most} with a radius each, got {self.stages} with "
                            f"{len(self.radii)} radii")  # fmt: skip
        matcher = Matcher(problem, labels, self.restarts, self.tv, "cosine", self.match, self.form)
        count = matcher.trials * problem.protocol.batch_size
        v = torch.randn(count, prior.style.num_ws, prior.style.w_dim, generator=rng).to(labels.device)
        v = v.unflatten(0, (matcher.trials, -1))
        parts = matcher.parts(prior.style)
        walks = [FeatureSpaceSearch(self, prior, matcher, part) for part in parts]
        found = Found.join([walk.run(v[part]) for walk, part in zip(walks, parts)])
        by_stage = [torch.cat(m).view(self.restarts, -1).min(0).values for m in zip(*(w.history for w in walks))]
        notes = {
            "labels": source, "chunks": len(parts),
            "match_by_stage": [[float(m) for m in stage.nan_to_num(posinf=1e30)] for stage in by_stage],
            "best_stage": torch.stack(by_stage).argmin(0).tolist(),
        }  # fmt: skip
        return matcher.answer(found, lambda x: x, notes)
