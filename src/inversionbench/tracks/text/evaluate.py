"""Recovered sentences against the true ones, with what is known without any gradient.

The sentences of a batch are matched once by bag overlap (see `metrics/text_recovery.py`); padding, start and end
count nowhere. Sentences are those that the client feeds, cut to the model's length. A word that the vocabulary
lacks reaches neither the model nor the server, but `<unknown>` in its place is a token like others: `verbatim` is
the share of exact matches without it, and the control `truth`, the true tokens themselves, says how many there could
be. Other controls, matched in the same way: sentences of the public text, words drawn from the public frequencies
with public lengths, and the true sentences of other clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inversionbench.core.scenario import Evaluation
from inversionbench.federation.batches import Batches
from inversionbench.metrics._matching import assign
from inversionbench.metrics.text_recovery import text_recovery
from inversionbench.models.text import END, PAD, SPECIAL, START, UNKNOWN, Tokenizer, sentences
from inversionbench.tracks._by_size import by_size, table
from inversionbench.tracks.text.clients import distinct

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.attack import Reconstruction

NAMES = {
    "exact_match": "exact", "token_accuracy": "token_accuracy", "token_recall": "coverage", "rouge1": "rouge1",
    "rouge2": "rouge2", "rougeL": "rougeL",
}  # fmt: skip
SHOWN = 3  # examples kept in a record
Sentences = list[list[int]]


def evaluate(
    reconstruction: Reconstruction, tokens: Tensor, tokenizer: Tokenizer, public: Iterable[str], batches: Batches,
    model: Mapping[str, Any], seed: int,
) -> Evaluation:
    """All numbers of one cell. tokens: int64 (clients, largest batch, length), the true sentences."""
    rng, sizes = np.random.default_rng(seed), batches.sizes
    true, guess = sentences(tokens, sizes), sentences(reconstruction.data, sizes)
    values = [_score(g, t) for g, t in zip(guess, true)]
    out = Evaluation(by_size(_columns(values), sizes), np.arange(batches.subjects))
    out.facts["by_batch_size"] = table(_columns(values), sizes)
    rows = tokenizer.encode(map(str, public), model["length"])
    known = sentences(rows[None], [len(rows)])[0]
    pool = np.array([t for s in known for t in s if t not in (START, END)])
    answers: dict[str, list[Sentences]] = {
        "random_sentences": [_some(known, size, rng) for size in sizes],
        "unigram": [[list(rng.choice(pool, max(1, len(s) - 2))) for s in _some(known, size, rng)] for size in sizes],
        "other_batch": [true[_next(i, batches)] for i in range(len(true))],
        "truth": true,
    }
    if batches.subjects == 1:
        del answers["other_batch"]
    for name, each in answers.items():
        out.controls[name] = by_size(_columns([_score(g, t) for g, t in zip(each, true)]), sizes)
    counts = [distinct(s, model["task"]) for s in true]
    out.facts |= {name: [c[name] for c in counts] for name in counts[0]}
    words = [t for batch in true for s in batch for t in s if t not in (PAD, START, END)]
    out.facts |= {
        "unknown_words": float(np.mean([t == UNKNOWN for t in words])),
        "width": model["width"], "sizes": sizes, "exact_of_client": [round(v["exact_match"], 6) for v in values],
        "examples": [{"true": tokenizer.decode(t[0]), "recovered": tokenizer.decode(_nearest(t[0], g))}
                     for t, g in zip(true[-SHOWN:], guess[-SHOWN:])],
    }  # fmt: skip
    return out


def _score(guess: Sentences, true: Sentences) -> dict[str, float]:
    """Means over one batch, matched by bag overlap."""
    order = assign(-_overlaps(true, guess))
    found = text_recovery([guess[i] for i in order], true, special=(PAD, START, END), match=False).values
    verbatim = found["exact"] * np.array([UNKNOWN not in s for s in true])
    return {ours: float(found[theirs].mean()) for ours, theirs in NAMES.items()} | {"verbatim": float(verbatim.mean())}


def _overlaps(true: Sentences, guess: Sentences) -> np.ndarray:
    """`metrics.text_recovery.bag_overlap` of every pair at once, (true, guesses)."""
    words = max((t for s in (*true, *guess) for t in s), default=0) + len(SPECIAL)
    a, b = (np.array([np.bincount(np.array(s, np.int64), minlength=words) for s in part]) for part in (true, guess))
    for bag in (a, b):
        bag[:, [PAD, START, END]] = 0
    apart = np.abs(a[:, None] - b[None]).sum(2)
    return 1 - apart / np.maximum(1, a.sum(1)[:, None] + b.sum(1)[None])


def _columns(values: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([v[name] for v in values]) for name in values[0]}


def _some(known: Sentences, size: int, rng: np.random.Generator) -> Sentences:
    return [known[i] for i in rng.integers(len(known), size=size)]


def _next(client: int, batches: Batches) -> int:
    """The next client with the same batch size."""
    clients = next(list(c) for _, c in batches.parts() if client in c)
    return clients[(clients.index(client) + 1) % len(clients)]


def _nearest(true: list[int], guesses: Sentences) -> list[int]:
    """The guess that shares most words with a true sentence."""
    return max(guesses, key=lambda g: len(set(g) & set(true)))
