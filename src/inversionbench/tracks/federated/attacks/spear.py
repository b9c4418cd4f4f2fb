"""SPEAR: a whole batch of images, exactly, from the gradient of a first linear layer with ReLU (beyond the survey).

Dimitrov, Baader, Müller, Vechev, "SPEAR: Exact Gradient Inversion of Batches in Federated Learning", NeurIPS 2024. The
gradient has the rank of the batch, and the errors behind it are sparse because of the ReLU; both together give the
batch without a search in image space, and a certificate that says whether the answer is right
(`gradients.low_rank`). The row "certified share" counts it; `facts.certified_wrong` how often it was wrong.

tries: draws of B - 1 units for each client, at most. One of them helps if some image leaves all of these units off:
about B / 2^(B - 1) of the draws in an untrained network, so 100,000 reach a batch of about 16. Training makes units
that nearly all images turn on, and ends it earlier. Where no answer is complete, the clients' images are those of
`gradients.analytic` (units that one image alone turns on, else the blend), without certificate.

Measured (crops of 32 x 32 pixels, 256 untrained units, one core): a batch of 8 exact to 1e-7 in 0.3 s, of 12 in 0.5 s.
Under noise of 1 % of the gradient's entries a batch of 4 is certified with an error of 0.2 %, at 10 % no longer.

Deviations: the chosen columns are compared by independence and zeros (the paper solves for the best subset); the
tolerance of zero comes from the gradient itself; the certificate also asks that no mixture explains the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.core.attack import Attack, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Spear(Attack):
    """label_rule: of hidden labels, which the attack does not need."""

    id = "spear"
    level = "GR"
    budget = ("tries",)

    tries: Count = 100_000
    label_rule: LabelRule = "bias_corrected"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.gradients.analytic import candidates, first_layer
        from inversionbench.gradients.low_rank import recover_all
        from inversionbench.gradients.problem import labels_of, read

        problem = read(oracle, where=torch.device("cpu"))
        front, shape = problem.model.front, problem.shape
        dw, db = first_layer(problem.update, torch.Size(shape[2:]).numel(), "SPEAR")
        sizes = [problem.protocol.batch_size] * problem.clients
        found = recover_all(problem.model, problem.update, len(problem.protocol.steps) > 1, sizes, rng, self.tries)
        fed = [
            f.x if f.x is not None else candidates(w, b, n, front.box, 1e-6)[0]
            for f, w, b, n in zip(found, dw, db, sizes)
        ]
        images = front.pixels(torch.stack(fed)).float().nan_to_num(0.5).clamp(0, 1).view(shape)
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        notes = {"labels": source, "certified": [f.certified for f in found], "draws": [f.tries for f in found],
                 "deviation": [f.sigma for f in found]}  # fmt: skip
        return Reconstruction(images, labels, cost={"gradient_evaluations": 0}, notes=notes)
