"""GI-NAS, gradient inversion with architecture search (survey 3.1; Yu et al., IEEE TIFS 2025).

An untrained network is the image prior: its weights, not pixels or latents, are fitted so that the image it
makes of fixed noise has the observed gradient. Which architecture suits a target is found without training:

1. z0 ~ N(0, 1) of the size of a batch, drawn once for all candidates and for the fit.
2. `candidates` random architectures (skip connections and upsampling blocks of a U-net, see `_untrained`) with
   random weights each make images; the score is 1 - cos(g(G(z0)), g), one gradient each, no second pass.
   Every client keeps the candidate with its lowest score, with those weights.
3. J(phi) = 1 - cos(g(G(z0; phi)), g) + tv * TV: Adam on the signs of dJ/dphi, batch norms of G on the batch at
   hand, no decay of the rate.

Labels are given or recovered first. `match: mask` compares the entries that were sent. The candidates are
drawn once for all clients; with `candidates` 1 nothing is searched.
Deviations: the iterate with the lowest matching loss is returned, not the last (the attacker sees that loss);
3 levels of 16 channels for small images, fewer candidates and steps, skips by averaging and bilinear
enlarging without weights. The released code replaces every ReLU of the victim by a sigmoid; here the victim is
what the scenario says, so give it sigmoids for that row. Against strong noise the network fits the noise (it
has more weights than there are pixels): a weight `tv` above the published 0 is the attacker's answer to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class GiNas(Attack):
    """levels: halvings of the size in the network. width: its channels, a multiple of 4. steps: of the fit."""

    id = "gi_nas"
    level = "GR"
    budget = ("steps",)

    candidates: Count = 5000
    levels: Count = 5
    width: Count = 128
    steps: Count = 30000
    rate: Positive = 1e-3
    signed: bool = True
    tv: NonNegative = 0.0
    match: Literal["plain", "mask"] = "plain"
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.core.errors import UserError
        from inversionbench.gradients.latent import Matcher
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.weights import Candidates, fit

        problem = read(oracle)
        side = problem.model.shape[-1]
        if self.levels < 1 or side % 2**self.levels or side // 2**self.levels < 2:
            raise UserError(f"gi_nas.levels: images of {side} pixels cannot be halved {self.levels} times and keep "
                            "2 pixels; use fewer levels")  # fmt: skip
        if self.width % 4:
            raise UserError(f"gi_nas.width: expected a multiple of 4, got {self.width}")
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        matcher = Matcher(problem, labels, 1, self.tv, "cosine", self.match, self.form)
        found = Candidates.draw(self.candidates, self.levels, self.width, problem.shape[1:], rng, problem.where)
        scores = found.scores(matcher)
        chosen = scores.argmin(dim=1)
        networks = [found.network(int(i)) for i in chosen]
        result = fit(matcher, networks, found.z0, self.steps, self.rate, self.signed)
        result.evaluations += scores.numel()
        result.held = [(n + scores.numel(), x, m) for n, x, m in result.held]
        notes = {
            "labels": source, "search_score": scores.min(dim=1).values.tolist(),
            "search_score_mean": scores.mean(dim=1).tolist(), "architecture": [str(found.of[int(i)]) for i in chosen],
            "weights": [sum(p.numel() for p in net.parameters()) for net in networks],
            "over_parameterised": all(sum(p.numel() for p in n.parameters()) > found.z0.numel() for n in networks),
        }  # fmt: skip
        return matcher.answer(result, lambda x: x, notes)
