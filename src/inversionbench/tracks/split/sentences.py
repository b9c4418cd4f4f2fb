"""Sentences as the inputs of a split language model: tokens, quality of the whole path, recovered against true ones.

Tokens are compared place by place, because every place has a state of its own; padding, start and end count nowhere.
Controls: words drawn by their public frequency, the sentence of another victim, what the attack made of another
victim's states, the truth (words that the vocabulary lacks are one token, as everywhere).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.attack import Reconstruction
from inversionbench.core.scenario import Evaluation
from inversionbench.data.base import Dataset, Part
from inversionbench.metrics.nll import FLOOR
from inversionbench.metrics.text_recovery import text_recovery
from inversionbench.models.text import END, IGNORED, PAD, START, Tokenizer, learn_words, targets

NAMES = {"exact_match": "exact", "token_accuracy": "token_accuracy", "token_recall": "coverage", "rougeL": "rougeL"}
SHOWN = 3  # examples kept in a record


def about(model: Mapping[str, Any], data: Dataset) -> dict[str, Any]:
    """Shape of an input, and the words of the public text. model: with all options."""
    words = learn_words(map(str, data.public.x), model["vocabulary"]).words
    return {"shape": [model["length"]], "classes": len(words), "words": list(words)}


def tokens(known: Mapping[str, Any], part: Part, rows: Any = slice(None)) -> tuple[Tensor, Tensor]:
    """int64 (n, length) each: the sentences, and the next token at every place."""
    x = Tokenizer(tuple(known["words"])).encode(map(str, part.x[rows]), known["shape"][0])
    return x, targets(x)


@torch.no_grad()
def quality(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Accuracy in [0, 1] and nll in nats of the next word, over all places; hits: a boolean for each of them."""
    said = torch.cat([net(part).softmax(1) for part in x.split(128)]).transpose(1, 2)[y != IGNORED]
    goal = y[y != IGNORED]
    hits = said.argmax(1) == goal
    nll = -said.gather(1, goal[:, None]).double().clamp_min(FLOOR).log().mean()
    chance = goal.bincount().max().item() / len(goal)
    return {"accuracy": float(hits.double().mean()), "nll": float(nll), "chance": chance, "hits": hits.tolist()}


def evaluate_sentences(
    reconstruction: Reconstruction, known: Mapping[str, Any], rows: Tensor, data: Dataset, seed: int
) -> Evaluation:
    """All numbers of one cell. rows: (n,) the victims' places in the held-out part; the answer's data: tokens (n,
    length)."""
    true, rng = tokens(known, data.heldout, rows.numpy())[0], np.random.default_rng(seed)
    public, found = tokens(known, data.public)[0], reconstruction.data
    pool = public[(public != PAD) & (public != START) & (public != END)].numpy()
    guesses = {"unigram": torch.from_numpy(rng.choice(pool, tuple(true.shape))), "other_victim": true.roll(1, 0),
               "swapped": found.roll(1, 0), "truth": true}  # fmt: skip
    tokenizer = Tokenizer(tuple(known["words"]))
    examples = [{"true": tokenizer.decode(t.tolist()), "recovered": tokenizer.decode(g.tolist())}
                for t, g in zip(true[:SHOWN], found[:SHOWN])]  # fmt: skip
    controls = {name: _score(guess, true) for name, guess in guesses.items()}
    return Evaluation(_score(found, true), rows.numpy(), controls, facts={"examples": examples})


def _score(guess: Tensor, true: Tensor) -> dict[str, np.ndarray]:
    """Metric -> (n,). A guess counts where the truth has a word."""
    words = (true != PAD) & (true != START) & (true != END)
    pairs = [(g[w].tolist(), t[w].tolist()) for g, t, w in zip(guess, true, words)]
    values = text_recovery([g for g, _ in pairs], [t for _, t in pairs], match=False).values
    return {ours: values[theirs].astype(np.float64) for ours, theirs in NAMES.items()}
