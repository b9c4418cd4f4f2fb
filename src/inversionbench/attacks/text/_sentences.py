"""DAGER client by client: spans, words, prefixes, and what is handed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inversionbench.attacks.base import Reconstruction
from inversionbench.attacks.text._prefixes import Found, first_inputs, grow
from inversionbench.attacks.text._span import Span, span_of
from inversionbench.models.text import PAD, Decoder
from inversionbench.oracle.base import AccessDenied, Oracle

if TYPE_CHECKING:
    from inversionbench.attacks.text.dager import Dager

PROJECTION = "blocks.{}.qkv.weight"


@dataclass(frozen=True)
class Words:
    """Per place the words that may stand there, closest first, int64 (k,), and their distances."""

    choices: list[Tensor]
    distances: list[Tensor]


@torch.no_grad()
def recover(attack: Dager, oracle: Oracle) -> Reconstruction:
    """The whole attack on every client."""
    model = oracle.global_model()
    if not isinstance(model, Decoder):
        raise AccessDenied(f"dager reads the gradients of a causal decoder, not of {type(model).__name__}")
    update, sizes = oracle.observe_update("client"), oracle.protocol()["sizes"]
    gradients = [update.get(PROJECTION.format(i)) for i in (0, 1)]
    if gradients[0] is None or gradients[1] is None:
        raise AccessDenied("the clients do not send the attention projections of the first two blocks")
    model = model.double()
    table = first_inputs(model, model.length)
    data = torch.full((len(sizes), max(sizes), model.length), PAD)
    scores = torch.ones(len(sizes), max(sizes), dtype=torch.float64)
    facts: list[dict[str, Any]] = []
    for i, size in enumerate(sizes):
        first, second = (span_of(g[i], attack.rank, attack.tolerance) for g in gradients)
        words = filter_words(table, first, attack, size)
        found = sentences_of(attack, model, words, second, size)
        for j, (sentence, score) in enumerate(fill(found, words, size)):
            data[i, j, : len(sentence)] = torch.tensor(sentence)
            scores[i, j] = score
        facts.append({
            "ranks": [first.rank, second.rank], "words": sum(map(len, words.choices)),
            "found": len(found.sentences), "tested": found.tested, "stopped": found.stopped,
        })  # fmt: skip
    notes = {name: [f[name] for f in facts] for name in facts[0]}
    tested = {"candidates": sum(f["tested"] for f in facts)}
    return Reconstruction(data, torch.full((len(sizes), max(sizes)), -1), scores, cost=tested, notes=notes)


def filter_words(table: Tensor, span: Span, attack: Dager, size: int) -> Words:
    """Step 2. table: (places, words, width), what the first block reads for each."""
    choices: list[Tensor] = []
    distances: list[Tensor] = []
    if span.full:
        return Words(choices, distances)
    for place in span.distance(table):
        near = place.argsort()
        if attack.nearest:
            near = near[: max(1, round(attack.nearest * size))]
            spread = (place - place.median()).abs().median()
            near = near[place[near] < place.median() - attack.outlier * spread]
        else:
            near = near[place[near] < attack.token_threshold]
        if not len(near):
            break
        choices.append(near)
        distances.append(place[near])
    return Words(choices, distances)


def sentences_of(attack: Dager, model: Decoder, words: Words, span: Span, size: int) -> Found:
    """Step 3; nothing where a span says nothing."""
    if span.full or not words.choices:
        return Found([], [], 0, False)
    beam = max(1, round(attack.beam * size)) if attack.nearest else 0
    return grow(model, words.choices, span, attack.sequence_threshold, attack.limit, beam)


def fill(found: Found, words: Words, size: int) -> list[tuple[list[int], float]]:
    """`size` sentences: those found, the surest first, then words that go together by their order alone."""
    order = sorted(range(len(found.sentences)), key=lambda i: found.scores[i])[:size]
    out = [(found.sentences[i], found.scores[i]) for i in order]
    for i in range(size - len(out)):
        out.append(([int(c[i % len(c)]) for c in words.choices], 1.0))
    return out
