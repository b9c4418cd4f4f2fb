"""iDLG, improved deep leakage from gradients (survey 3.1; Zhao, Mopuri, Bilen, 2020).

For a batch of one and cross entropy the label stands in the gradient of the last layer: d loss / d z_i =
p_i - [i = y] is negative for the label only. So the label is read off first, exactly (smallest entry of the
bias gradient, for any activation; without a bias the row whose inner product with every other row is not
positive; "row_sum" is the shortcut of the public code, right only for features with a positive sum), and DLG's
squared distance is minimised over the image alone, by the same L-BFGS.

Deviations: as in `dlg`. For batches the labels come from `batch_rule`, which iDLG does not have: the row is then
"iDLG with recovered labels". Labels that a scenario would give are not used.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Idlg(Attack):
    """label_rule: for a batch of one. Other fields as in `dlg`."""

    id = "idlg"
    level = "GR"
    budget = ("steps", "restarts")
    published = {"steps": 300}

    steps: Count = 300
    rate: Positive = 1.0
    history: Count = 100
    restarts: Count = 1
    stop: NonNegative = 1e-6
    init: Literal["randn", "rand", "zeros", "patterned"] = "randn"
    label_rule: LabelRule = "bias"
    batch_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.gradients.problem import read, recovered
        from inversionbench.gradients.second_order import Settings, invert

        problem = read(oracle)
        rule = self.label_rule if problem.protocol.batch_size == 1 else self.batch_rule
        if rule == "bias" and problem.model.head.bias is None:
            rule = "inner_product"
        labels = recovered(problem, rule, rng)
        own = {k: v for k, v in asdict(self).items() if not k.endswith("_rule")}
        result = invert(problem, labels, Settings(**own), rng)
        result.notes["labels"] = rule
        return result
