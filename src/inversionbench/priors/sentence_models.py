"""What an attacker on a text classifier has before he asks it: a language model and a classifier, both of public text.

The language model is a causal transformer (`models.text.Decoder`) trained to foresee the next word; its words are those
of the target, which are learnt from the same public text, so that its output can be fed to the target. The classifier
(`models.encoder`) is trained on the public labels. The one makes sentences, the other is a control: what public
knowledge alone finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from inversionbench.core.prior import PriorRecipe
from inversionbench.core.ranges import Count, Positive
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import spawn
from inversionbench.models.encoder import Encoder
from inversionbench.models.text import Decoder, Tokenizer, learn_words, targets
from inversionbench.training.loop import fit

if TYPE_CHECKING:
    from pathlib import Path

    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class SentenceModels:
    """Frozen, in evaluation mode."""

    language: Decoder
    classifier: nn.Module
    words: tuple[str, ...]


@dataclass(frozen=True)
class SentenceModelsRecipe(PriorRecipe):
    """width, blocks, heads: of the language model. vocabulary, length: as the target's. epochs, rate: of its training.
    classifier_epochs: of the public classifier's."""

    id: ClassVar[str] = "sentence_models"

    width: Count = 96
    blocks: Count = 2
    heads: Count = 4
    vocabulary: Count = 400
    length: Count = 12
    epochs: Count = 4
    classifier_epochs: Count = 4
    batch: Count = 64
    rate: Positive = 4e-3

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Oracle | None = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        tokenizer = learn_words(map(str, public.x), self.vocabulary)
        x, words = tokenizer.encode(map(str, public.x), self.length), len(tokenizer.words)
        y, classes = public.labels(), int(public.y.max()) + 1
        recipe: dict[str, Any] = {"batch": self.batch, "rate": self.rate}
        language = fit(lambda: self._language(words), x, targets(x), words, Recipe(epochs=self.epochs, **recipe),
                       rng=spawn(rng), progress=progress, description="language model")  # fmt: skip
        judge = fit(lambda: self._classifier(words, classes), x, y, classes,
                    Recipe(epochs=self.classifier_epochs, **recipe), rng=spawn(rng), progress=progress,
                    description="public classifier")  # fmt: skip
        return {"words": list(tokenizer.words), "classes": classes, "language": language.state_dict(),
                "classifier": judge.state_dict()}  # fmt: skip

    def load(self, state: dict[str, Any]) -> SentenceModels:
        words = Tokenizer(tuple(state["words"])).words
        language, judge = self._language(len(words)), self._classifier(len(words), state["classes"])
        language.load_state_dict(state["language"])
        judge.load_state_dict(state["classifier"])
        return SentenceModels(language.eval().requires_grad_(False), judge.eval().requires_grad_(False), words)

    def _language(self, words: int) -> Decoder:
        return Decoder({**self._sizes(), "task": "language"}, words, words)

    def _classifier(self, words: int, classes: int) -> Encoder:
        return Encoder({**self._sizes(), "width": 64}, words, classes)

    def _sizes(self) -> dict[str, int]:
        return {"width": self.width, "blocks": self.blocks, "heads": self.heads, "length": self.length}
