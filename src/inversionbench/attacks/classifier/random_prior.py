"""Control: images of the prior that never saw the target. What remains to an attack is what it adds to this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inversionbench.attacks.base import Attack, Knowledge, Reconstruction
from inversionbench.attacks.classifier._rows import picture, rows

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class RandomPrior(Attack):
    """restarts: images per class."""

    id: ClassVar[str] = "random_prior"
    level: ClassVar[str] = "LO"  # asks nothing
    prior: ClassVar[str] = "dcgan"
    control: ClassVar[bool] = True

    restarts: int = 5

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        y = rows(knowledge.targets, self.restarts)
        return Reconstruction(picture(knowledge.prior, knowledge.prior.sample(len(y), rng)), y)
