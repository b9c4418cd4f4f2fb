"""Sentences: a causal decoder, batches of several sizes.

    public text ── words, `training` epochs ──▶ tokenizer, global model (0 epochs: initial weights)

With `trained: attention` the clients train (and send) the attention projections alone and the server's
embeddings stay: else the rows of the embedding gradient that are not zero name every word of the batch, and no
attack is needed for that. `precision` is the one that the clients compute in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import Defense
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import draw_seed, stream
from inversionbench.federation.inputs import Inputs, enough, padded
from inversionbench.federation.settings import Batches, batches_of_sentences
from inversionbench.models import text
from inversionbench.models._text_names import options_of
from inversionbench.models.text import PAD, Decoder, Tokenizer
from inversionbench.training.loop import fit

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Dataset, Part

TRAINED = {"all": lambda name: True, "attention": lambda name: ".qkv." in name}
START_RECIPE = {"epochs": 0, "batch": 32, "optimiser": "adamw", "rate": 2e-3, "schedule": "one_cycle"}


class Sentences(Inputs):
    """x: int64 (n, length), token numbers; y: int64 (n, length), the next tokens, or (n,), classes."""

    kind = "sentences"
    facts = ("words", "classes")

    @property
    def batches(self) -> Batches:
        return batches_of_sentences(self.scenario)

    def samples(self, part: Part, about: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        options = options_of(self.scenario.model)
        x = Tokenizer(tuple(about["words"])).encode(map(str, part.x), options["length"])
        return x, text.targets(x) if options["task"] == "language" else part.labels()

    def about(self, data: Dataset) -> Mapping[str, Any]:
        tokenizer = text.learn_words(map(str, data.public.x), options_of(self.scenario.model)["vocabulary"])
        return {"words": list(tokenizer.words), "classes": data.classes}

    def classes(self, about: Mapping[str, Any]) -> int:
        return len(about["words"])

    def fresh(self, about: Mapping[str, Any], rng: torch.Generator) -> Decoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            return self._decoder(about).eval()

    def start(self, data: Dataset, defense: Defense, seed: int, progress: Progress | None = None) -> nn.Module:
        """Trained on public text as `scenario.training` says."""
        recipe = Recipe(**{**START_RECIPE, **self.scenario.training})
        if recipe.epochs == 0:
            return super().start(data, defense, seed)
        about = self.about(data)
        x, y = self.samples(data.public, about)
        factory = lambda: defense.build_model(lambda: self._decoder(about))
        return fit(factory, x, y, data.classes, recipe, rng=stream(seed, "model"), progress=progress,
                   description=self.scenario.name)  # fmt: skip

    def ready(self, model: nn.Module) -> nn.Module:
        """In the clients' precision; what they do not train becomes a buffer."""
        protocol = self.scenario.protocol
        model.to(getattr(torch, protocol.get("precision", "float64")))
        return text.hold(model, TRAINED[protocol.get("trained", "attention")])

    def choose(self, y: Tensor, seed: int) -> dict[str, Tensor]:
        needed = sum(self.batches.sizes)
        enough(needed, len(y), self.kind, self.batches)
        return {"client": padded(torch.randperm(len(y), generator=stream(seed, "subjects"))[:needed], self.batches)}

    def truth(
        self, x: Tensor, y: Tensor, index: Mapping[str, Tensor], held: Tensor, transformed: Sequence[Tensor]
    ) -> dict[str, Any]:
        return {"tokens": x[index["client"]].masked_fill(~held[..., None], PAD)}

    @torch.no_grad()
    def quality(self, model: nn.Module, data: Dataset) -> dict[str, float]:
        """accuracy (of the next word, or of the class) in [0, 1] and nll in nats on held-out text."""
        language = options_of(self.scenario.model)["task"] == "language"
        x, y = self.samples(data.heldout, self.about(data))
        loss, right, count = 0.0, 0.0, 0
        for bx, by in zip(x.split(128), y.split(128)):
            logits = model(bx).flatten(2).transpose(1, 2).flatten(0, 1) if language else model(bx)
            goal = by.flatten()
            kept = goal != text.IGNORED
            loss += float(nn.functional.cross_entropy(logits[kept], goal[kept], reduction="sum"))
            right += float((logits[kept].argmax(1) == goal[kept]).sum())
            count += int(kept.sum())
        return {"accuracy": right / count, "nll": loss / count}

    def _decoder(self, about: Mapping[str, Any]) -> Decoder:
        """Initial weights from the global generator."""
        return Decoder(options_of(self.scenario.model), len(about["words"]), about["classes"])
