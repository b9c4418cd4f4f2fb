"""Attribute inference: the value of a sensitive attribute from a model's answers. Survey 2.1, 3.3.

Fredrikson, Lantz, Jha, Lin, Page, Ristenpart, "Privacy in Pharmacogenetics: An End-to-End Case Study of
Personalized Warfarin Dosing", USENIX Security 2014 (labels); Fredrikson, Jha, Ristenpart, CCS 2015 (tree,
white box with counts). The attacker knows all other attributes x_K and the true response y of a record,
completes it with every possible value v, asks the model, and takes the value that explains y best:

    v* = argmax_v  fit(y, model(v, x_K)) * belief(v)

access: LO, the 2014 algorithm: fit = Pr[true y | predicted y_v] from the published confusion matrix.
  BB-S, a modern variant that is not in the papers: fit = the score of y. WB, trees only, the 2015 algorithm:
  fit = share of the training rows with response y in the leaf, over the share on all paths that admit v.
belief: marginal (the papers'), conditional (p(v | x_K) from public records, a stronger attacker), uniform
  (what an attacker takes who is judged by balanced accuracy).

rounding: BB-S alone. The attacker rounds the scores to a grid, as the defense confidence rounding would, and takes
  what is left. Small differences between scores, which tell of anybody, are gone; members' scores near 1 stay. So
  nobody is guessed better, but the gap between members and non-members grows (generated dosing table, MLP, 10
  targets, balanced accuracy of members / non-members / gap: 76 / 59 / 17 points without, 74 / 49 / 25 with steps of
  0.5; AUROC .93 / .75 / .18 and .91 / .68 / .22). Anybody can round what an undefended target answers.

V queries per record. Deviations: confusion matrix and marginals come from public rows; the model's errors get
one count more in each cell; leaf counts are those of rows with response y, so that leaves may mix labels;
equally likely values are drawn by lot. Numeric attributes are asked in bins, which the scenario sets for all
rows of a table. Responses are classes here; the paper's Gaussian error of a regression is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import NonNegative
from inversionbench.oracle.base import Oracle
from inversionbench.tracks.tabular.attacks._posterior import check, infer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class MIAttribute(Attack):
    """data: int64 (n,), the index of the inferred value of each record; scores: its posterior (n, V)."""

    id: ClassVar[str] = "mi_attribute"
    level: ClassVar[tuple[str, ...]] = ("LO", "BB-S", "WB")

    access: str = "LO"
    belief: Literal["marginal", "conditional", "uniform"] = "marginal"
    rounding: NonNegative = 0.0

    def __post_init__(self) -> None:
        check(self.id, self.access, self.belief)
        if not 0 <= self.rounding <= 1 or (self.rounding and self.access != "BB-S"):
            raise UserError(f"mi_attribute.rounding: expected a width in [0, 1], and access BB-S, got {self.rounding} "
                            f"with {self.access}")  # fmt: skip

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        return infer(self.access, self.belief, oracle, knowledge, rng, rounding=self.rounding)
