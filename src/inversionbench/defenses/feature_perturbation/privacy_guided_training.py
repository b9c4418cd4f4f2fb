"""Privacy-guided training: trees that avoid splits on the sensitive attribute (survey 4.1); own, a reconstruction.

Goldsteen, Ezov, Farkash, "Reducing Risk of Model Inversion Using Privacy-Guided Training", arXiv 2006.15877. Read: that
training lowers the influence of sensitive features and raises that of others. The criterion itself could not be read;
this instantiation is a penalised split gain as in regularised trees. Of the columns f of the sensitive attribute, at
every node,

    gain_p(f) = (1 - alpha) gain(f)

and the largest decides (`models.cart`); whether to split at all is asked of the plain gain. strength: alpha, at most 1,
where the tree is the one of a table without the column. free_level: the one depth (0 is the root) at which such splits
lose nothing; with alpha 1 that is the countermeasure of Fredrikson, Jha, Ristenpart, CCS 2015.

All features but the attribute that attacks ask for have the weight 0: columns that stand for it still tell, which the
imputation beside every row shows. One tree; no forests, no boosting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import NonNegative, Whole

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PrivacyGuidedTraining(Defense):
    """strength: alpha, at most 1. free_level: a depth without penalty, or None."""

    id = "privacy_guided_training"
    hooks = frozenset({"build_model"})
    inputs = ("table",)
    models = ("tree", "pruned_tree")

    strength: NonNegative = 0.0
    free_level: Whole | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength: expected alpha from 0 to 1, got {self.strength}")

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        """The factory gives the learner of a tree, not a network."""
        if self.strength == 0:
            return factory()
        learner: Any = factory()
        return replace(learner, penalty=self.strength, free_at=self.free_level)

    def public_knowledge(self) -> dict[str, Any]:
        return {"alpha": self.strength, "free_level": self.free_level}
