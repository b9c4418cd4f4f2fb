"""DAGER client by client: spans, words, prefixes, and what is handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inversionbench.core.attack import Knowledge, Reconstruction
from inversionbench.core.errors import AccessDenied
from inversionbench.gradients.sums import summed
from inversionbench.models.text import PAD, Decoder
from inversionbench.oracle.base import Oracle
from inversionbench.tracks.text.attacks._prefixes import Found, first_inputs, grow
from inversionbench.tracks.text.attacks._span import Judge, Span, span_of

if TYPE_CHECKING:
    from inversionbench.tracks.text.attacks.dager import Dager

PROJECTION = "blocks.{}.qkv.weight"
UNSURE = 1.0  # score of a sentence that only fills up
ENDING = 2


@torch.no_grad()
def recover(attack: Dager, oracle: Oracle, knowledge: Knowledge) -> Reconstruction:
    """The whole attack on every client, or on every sum of clients where the attacker knows of them."""
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
    groups = summed(update, knowledge.defense.get("groups") if attack.rank == "noise" else None)
    for members in sorted(groups):
        size = sizes[members[0]]
        first, second = (span_of(g[members[0]], attack.rank, attack.tolerance) for g in gradients)
        words = filter_words(table, first, attack, size * len(members))
        found = sentences_of(attack, model, words, second, size * len(members))
        filled = fill(found, words, size * len(members), not attack.outlier)
        for place, i in enumerate(i for i in members if i < len(sizes)):
            for j, (sentence, score) in enumerate(filled[place * size : (place + 1) * size]):
                data[i, j, : len(sentence)] = torch.tensor(sentence)
                scores[i, j] = score
            facts.append({
                "ranks": [first.rank, second.rank], "words": sum(map(len, words)),
                "found": len(found.sentences), "tested": found.tested if place == 0 else 0, "stopped": found.stopped,
            })  # fmt: skip
    notes: dict[str, Any] = {name: [f[name] for f in facts] for name in facts[0]}
    if max(map(len, groups)) > 1:
        notes["clients_in_sum"] = max(map(len, groups))
    tested = {"candidates": sum(f["tested"] for f in facts)}
    return Reconstruction(data, torch.full((len(sizes), max(sizes)), -1), scores, cost=tested, notes=notes)


def filter_words(table: Tensor, span: Span, attack: Dager, size: int) -> list[Tensor]:
    """Step 2: per place the words that may stand there, surest first. table: (places, words, width), what the first
    block reads for each."""
    choices: list[Tensor] = []
    judge = Judge(span, attack.token_threshold, attack.outlier)
    least = round(attack.nearest * size) if attack.outlier else 0
    if span.full:
        return choices
    for place in table:
        kept, score = judge(place, place)
        order = score.argsort(stable=True)
        if not kept.any():
            break
        choices.append(order[: max(int(kept.sum()), least)])
    return choices


def sentences_of(attack: Dager, model: Decoder, choices: list[Tensor], span: Span, size: int) -> Found:
    """Step 3; nothing where a span says nothing."""
    if span.full or not choices:
        return Found([], [], 0, False)
    judge = Judge(span, attack.sequence_threshold, attack.outlier)
    beam = round(attack.beam * size) if attack.outlier else attack.limit
    return grow(model, choices, judge, attack.limit, beam)


def fill(found: Found, choices: list[Tensor], size: int, certain: bool) -> list[tuple[list[int], float]]:
    """`size` sentences: those found, the surest first, then words that go together by their order alone.

    Where the judge is not certain, a sentence that repeats a surer one up to its last `ENDING` words is left out.
    """
    out: list[tuple[list[int], float]] = []
    for i in sorted(range(len(found.sentences)), key=lambda i: found.scores[i]):
        sentence = found.sentences[i]
        repeats = any(sentence[: len(sentence) - ENDING] == s[: len(sentence) - ENDING] for s, _ in out)
        if len(out) < size and (certain or not repeats):
            out.append((sentence, found.scores[i]))
    for i in range(size - len(out)):
        out.append(([int(c[i % len(c)]) for c in choices], UNSURE))
    return out
