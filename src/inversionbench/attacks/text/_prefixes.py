"""Growing sentences word by word with the first block of a causal decoder, and the span check of the second.

What the second block reads at a place depends on the words up to there alone. The first block's queries, keys and values
of a word at a place depend on nothing else, so they are tables; a candidate costs one attention over its prefix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inversionbench.attacks.text._span import Span
from inversionbench.models.text import Decoder

CHUNK = 1 << 22  # numbers in the largest tensor of one step


def first_inputs(model: Decoder, places: int) -> Tensor:
    """What the first block's attention reads for every word at every place: (places, words, width)."""
    h = model.token.weight[None] + model.position.weight[:places, None]
    return model.blocks[0].norm1(h)  # type: ignore[operator, union-attr, return-value]


@dataclass(frozen=True)
class Found:
    """sentences: lists of token numbers. scores: their largest distance at any place. tested: candidates
    looked at. stopped: whether the limit ended the search.
    """

    sentences: list[list[int]]
    scores: list[float]
    tested: int
    stopped: bool


class FirstBlock:
    """Tables of the first block for the words that may stand at each place."""

    def __init__(self, model: Decoder, choices: list[Tensor]):
        self.block, self.next = model.blocks[0], model.blocks[1]
        self.width, self.heads = model.width, self.block.heads
        self.h = [model.token.weight[ids] + model.position.weight[p] for p, ids in enumerate(choices)]
        tables = [self.block.qkv(self.block.norm1(h)).view(len(h), 3, self.heads, -1) for h in self.h]  # type: ignore[operator]
        self.q, self.k, self.v = ([t[:, i] for t in tables] for i in range(3))

    def second_inputs(self, prefixes: Tensor, last: Tensor) -> Tensor:
        """What the second block reads at the last place of prefix + word.

        prefixes: int64 (n, p), positions in the tables of the places before; last: (n,), in that of place p.
        """
        p = prefixes.shape[1]
        keys = torch.stack([*(self.k[j][prefixes[:, j]] for j in range(p)), self.k[p][last]], dim=1)
        values = torch.stack([*(self.v[j][prefixes[:, j]] for j in range(p)), self.v[p][last]], dim=1)
        scores = torch.einsum("nhc,nphc->nph", self.q[p][last], keys) * keys.shape[-1] ** -0.5
        seen = torch.einsum("nph,nphc->nhc", scores.softmax(1), values).reshape(len(last), self.width)
        return self.next.norm1(self.block.rest(self.h[p][last], seen))  # type: ignore[operator]


@torch.no_grad()
def grow(
    model: Decoder, choices: list[Tensor], span: Span, threshold: float, limit: int, beam: int = 0
) -> Found:
    """All sentences whose every prefix lies in the span of the second block's inputs.

    choices: per place the words that may stand there. threshold: largest distance at a place. limit: most
    candidates tested at one place; beyond it the search stops. beam: if not 0, no threshold, but the `beam`
    prefixes of smallest mean distance go on at every place.
    """
    tables = FirstBlock(model, choices)
    prefixes, scores = torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
    out: list[list[int]] = []
    told: list[float] = []
    tested, stopped = 0, False

    def finish(rows: Tensor, score: Tensor) -> None:
        if rows.shape[1]:
            columns = [choices[j][rows[:, j]] for j in range(rows.shape[1])]
            out.extend(torch.stack(columns, dim=1).tolist())
            told.extend(score.tolist())

    for place, words in enumerate(choices):
        count = len(prefixes) * len(words)
        if count > limit:
            stopped = True
            break
        which = torch.arange(len(prefixes)).repeat_interleave(len(words))
        last = torch.arange(len(words)).repeat(len(prefixes))
        step = max(1, CHUNK // ((place + 1) * model.width))
        distance = torch.cat([
            span.distance(tables.second_inputs(prefixes[w], t)) for w, t in zip(which.split(step), last.split(step))
        ])
        tested += count
        if beam:
            total = scores[which] + distance
            kept = total.topk(min(beam, count), largest=False).indices
            scores = total[kept]
        else:
            kept = torch.nonzero(distance < threshold).flatten()
            ended = torch.ones(len(prefixes), dtype=torch.bool).scatter_(0, which[kept], False)
            finish(prefixes[ended], scores[ended])
            scores = torch.maximum(scores[which[kept]], distance[kept])
        prefixes = torch.cat([prefixes[which[kept]], last[kept, None]], dim=1)
        if not len(prefixes):
            break
    finish(prefixes, scores / max(1, prefixes.shape[1]) if beam else scores)
    return Found(out, told, tested, stopped)
