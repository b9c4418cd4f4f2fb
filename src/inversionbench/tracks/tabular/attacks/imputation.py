"""Control: guesses the sensitive attribute by a model of public records. Asks the target nothing.

It knows what attribute inference knows except the target: the other attributes, the true response, public
records of the same population. An attack that does not beat it has found correlation in the population, not
a leak of the model. Non-members of every attack should lie at it or below.

kind: logistic regression, a random forest (60 trees, at least 3 rows in a leaf), or the better of the two in
cross-validation. response: whether the imputer sees the response. balanced: whether all values weigh
the same in its training, which makes it the fair opponent in balanced accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.errors import UserError, suggest
from inversionbench.models.imputers import KINDS, impute, train_imputer
from inversionbench.oracle.base import Oracle
from inversionbench.tracks.tabular.attacks._posterior import choose, facts


@dataclass(frozen=True)
class Imputation(Attack):
    """data: int64 (n,), the most likely value of each record; scores: its probabilities (n, V)."""

    id: ClassVar[str] = "imputation"
    level: ClassVar[str] = "LO"
    control: ClassVar[bool] = True
    control_without_defense: ClassVar[bool] = True

    kind: str = "best"
    response: bool = True
    balanced: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"imputation.kind: '{self.kind}': {suggest(self.kind, KINDS)}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        seed = int(torch.randint(2**31, (1,), generator=rng))
        public, classes = knowledge.public, knowledge.classes
        y, asked = (public.y, knowledge.responses.numpy()) if self.response else (None, None)
        model = train_imputer(knowledge.question, public.x, y, classes, seed, self.kind, self.balanced)
        share = impute(model, knowledge.records.numpy(), asked, classes)
        value, posterior = choose(torch.from_numpy(share), rng)
        notes = facts(knowledge) | {"imputer": model["kind"]}
        return Reconstruction(value, knowledge.responses, posterior, notes=notes)
