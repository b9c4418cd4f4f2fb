"""Labels of a client's batch, read off the last layer's gradient by one rule (survey 3.1; iDLG, GradInversion, ...).

A row of its own for every rule, on scenarios with `protocol.ask: labels`: no image is sought, the score is the
overlap of the recovered class counts with the true ones. Rules, sources and when each is exact: `_labels`, and
`evolution` of SGI (`_evolution`, needs public images). A weight difference of several local steps counts as the
mean gradient along the client's path, so the rules become approximate there.

The batch size is known, as in all papers. Rules for a batch of one (`inner_product`) raise `AccessDenied` on others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, Whole

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class LabelRecovery(Attack):
    """rule: how. images, ranks: of the rule `evolution`, as in `sgi`. data and labels: int64 (clients, batch)."""

    id = "label_recovery"
    level = "GR"
    asks = "labels"
    on_device = False

    rule: str = "bias_corrected"
    images: Count = 64
    ranks: Whole = 0

    def __post_init__(self) -> None:
        from inversionbench.core.errors import UserError, suggest
        from inversionbench.gradients.labels import RULES

        if self.rule not in (*RULES, "evolution"):
            raise UserError(f"label_recovery.rule: '{self.rule}': {suggest(self.rule, [*RULES, 'evolution'])}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.core.errors import AccessDenied
        from inversionbench.gradients.evolution import labels_by_evolution
        from inversionbench.gradients.problem import read, recovered

        problem = read(oracle, where=torch.device("cpu"))
        if self.rule == "inner_product" and problem.protocol.batch_size > 1:
            raise AccessDenied(f"the rule 'inner_product' is defined for one image, not {problem.protocol.batch_size}")
        if self.rule == "evolution":
            labels = labels_by_evolution(problem, knowledge.public, self.images, self.ranks, rng)
        else:
            labels = recovered(problem, self.rule, rng)
        return Reconstruction(labels, labels, cost={"gradient_evaluations": 0}, notes={"labels": self.rule})
