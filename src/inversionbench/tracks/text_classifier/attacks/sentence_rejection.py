"""Plain rejection: many sentences of the language model, of which the target chooses; the baseline of steering.

It draws `calls` sentences from the language model, asks the target once for the scores of each (a query shows all
classes), and hands over the `kept` sentences of the highest score of each class. No gradient, no white box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, Whole
from inversionbench.tracks.text_classifier.attacks._generate import answer, best, sample

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class SentenceRejection(Attack):
    """As `TextRevealer` hands over."""

    id: ClassVar[str] = "sentence_rejection"
    level: ClassVar[str] = "BB-S"
    prior: ClassVar[str] = "sentence_models"
    budget: ClassVar[tuple[str, ...]] = ("calls",)

    calls: Count = 4000
    kept: Count = 20
    top: Whole = 0

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        pool = sample(knowledge.prior.language, self.calls, self.top, rng)
        return answer(best(pool, oracle.scores(pool), self.kept), knowledge, made=self.calls)
