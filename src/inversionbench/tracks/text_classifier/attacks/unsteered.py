"""Control: sentences of the language model of public text, of which nobody or somebody else than the target chooses.

guide: `nobody`, the first `kept` sentences for each class, whatever they say; `untrained`, a network with fresh
weights, or `public`, a classifier of public text, which chooses of `draws` sentences as the target does in
`sentence_rejection`. Asks the target nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, Whole
from inversionbench.core.seeds import draw_seed
from inversionbench.tracks.text_classifier.attacks._generate import answer, best, sample

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Unsteered(Attack):
    """As `TextRevealer` hands over."""

    id: ClassVar[str] = "unsteered"
    level: ClassVar[str] = "BB-S"
    prior: ClassVar[str] = "sentence_models"
    control: ClassVar[bool] = True
    control_without_defense: ClassVar[bool] = True

    guide: Literal["nobody", "untrained", "public"] = "nobody"
    draws: Count = 4000
    kept: Count = 20
    top: Whole = 0

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        models, classes = knowledge.prior, knowledge.classes
        if self.guide == "nobody":
            x = sample(models.language, classes * self.kept, self.top, rng).view(classes, self.kept, -1)
            return answer(x, knowledge, made=classes * self.kept)
        judge = models.classifier
        if self.guide == "untrained":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(draw_seed(rng))
                judge = judge.untrained()
        pool = sample(models.language, self.draws, self.top, rng)
        with torch.no_grad():
            fit = judge(pool).softmax(1)
        return answer(best(pool, fit, self.kept), knowledge, made=self.draws)
