"""What sentences made for a class say of the private ones: whether they name the entities that these name too often.

For each class and type of entity there is one secret. Its rank among all entities of the type, by how often the
sentences made for the class name them (equally frequent ones share their mean rank), is compared with its rank by how
often the language model names them by itself:

    entity_lift = rank by the language model - rank in the sentences        0: the target has told nothing

The same number of sentences for every row, because the rank gets better with more. Fluency beside it: negative log
likelihood per word, by pairs of words of the public text (one added to each count), and the share of sentences that the
grammar allows. Controls: private sentences of the class, and public ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from inversionbench.core.quantity import Quantity
from inversionbench.core.scenario import Evaluation
from inversionbench.models.text import END, PAD, Tokenizer
from inversionbench.tracks.text_classifier.target import sentences

if TYPE_CHECKING:
    from inversionbench.core.attack import Reconstruction
    from inversionbench.core.scenario import Target
    from inversionbench.data.base import Dataset

LIFT = Quantity("entity_lift", "lift of secret entities", "ranks", 1, direction="higher",
                note="rank of the secret entity by the language model's own frequency minus that in the sentences")
RANK = Quantity("entity_rank", "rank of secret entities", "", 1, direction="lower",
                note="among the 30 of its type; 15.5 by chance")  # fmt: skip
FIRST = Quantity("entity_first", "secret entity first", "%", 0, 100.0, direction="higher",
                 note="named more often than any other of its type")  # fmt: skip
FLUENCY = Quantity("surprise", "surprise per word", "nats", 2, direction="lower",
                   note="by pairs of words of the public text; real sentences have about the control's")  # fmt: skip
GRAMMAR = Quantity("grammatical", "grammatical", "%", 0, 100.0, direction="higher",
                   note="sentences that the grammar of the data set allows")  # fmt: skip
SHOWN = 2


def evaluate(reconstruction: Reconstruction, target: Target, data: Dataset, seed: int) -> Evaluation:
    """All numbers of one cell: entities per secret (classes * types,), fluency per class, repeated for each."""
    released, truth, rng = target.released, target.truth, np.random.default_rng(seed)
    words, length = tuple(released["words"]), released["options"]["length"]
    own = reconstruction.notes["own_frequency"].double().numpy()
    classes, labels = released["classes"], reconstruction.labels
    kept = len(labels) // classes
    public = sentences(data.public, words, length, torch.arange(len(words)))
    private = sentences(data.heldout, words, length, truth["renamed"])
    score = _Score(truth, own, Tokenizer(words), public[0], data.meta["grammar"])
    made = [reconstruction.data[labels == c] for c in range(classes)]
    out = Evaluation(score(made), np.repeat(np.arange(classes), len(truth["types"])))
    for name, (x, y) in {"private_sentences": private, "public_sentences": public}.items():
        rows = [np.flatnonzero(y.numpy() == c) for c in range(classes)]
        out.controls[name] = score([x[rng.choice(r, min(kept, len(r)), replace=False)] for r in rows])
    out.facts = {"own_frequency": "of each word, counted by the attack", "kept": kept,
                 "examples": [Tokenizer(words).decode(x) for part in made for x in part[:SHOWN]]}  # fmt: skip
    if "guarantee" in truth:
        out.facts["guarantee"] = truth["guarantee"]
    return out


class _Score:
    """All metrics of sentences for each class."""

    def __init__(
        self, truth: Mapping[str, Any], own: np.ndarray, tokenizer: Tokenizer, public: Tensor,
        grammar: Mapping[str, Any],
    ):
        self.truth, self.own, self.tokenizer = truth, own, tokenizer
        n = len(own)
        pairs = torch.bincount(public[:, :-1].flatten() * n + public[:, 1:].flatten(), minlength=n * n).view(n, n)
        self.pairs = ((pairs + 1) / (pairs + 1).sum(1, keepdim=True)).log()
        options = {slot: f"(?:{'|'.join(map(re.escape, own))})" for slot, own in grammar["slots"].items()}
        self.grammar = re.compile("|".join(f"(?:{template.format(**options)})" for template in grammar["templates"]))

    def __call__(self, made: list[Tensor]) -> dict[str, np.ndarray]:
        ranks, before, fluent, allowed = [], [], [], []
        for c, x in enumerate(made):
            counts = x.flatten().bincount(minlength=len(self.own)).numpy()
            for kind, members in self.truth["types"].items():
                at = members.index(self.truth["secrets"][kind][c])
                ranks.append(rankdata(-counts[members])[at])
                before.append(rankdata(-self.own[members])[at])
            fluent += [self._surprise(x)] * len(self.truth["types"])
            share = np.mean([bool(self.grammar.fullmatch(self.tokenizer.decode(row))) for row in x])
            allowed += [share] * len(self.truth["types"])
        rank = np.array(ranks)
        return {"entity_lift": np.array(before) - rank, "entity_rank": rank, "entity_first": (rank == 1).astype(float),
                "surprise": np.array(fluent), "grammatical": np.array(allowed)}  # fmt: skip

    def _surprise(self, x: Tensor) -> float:
        """Mean over all words and ends that follow a word."""
        first, second = x[:, :-1], x[:, 1:]
        real = (second != PAD) & (first != END)
        return -float(self.pairs[first, second][real].mean())
