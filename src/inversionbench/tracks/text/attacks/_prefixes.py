"""Growing sentences word by word with the first block of a causal decoder, and the span check of the second.

What the second block reads at a place depends on the words up to there alone. The first block's queries, keys and
values of a word depend on word and place only: they are tables, and a candidate costs one attention over its prefix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inversionbench.models.text import Decoder
from inversionbench.tracks.text.attacks._span import Judge

CHUNK = 1 << 22  # numbers in the largest tensor of one step
REFERENCES = 64  # extensions by any word, beside which the others are judged


def first_inputs(model: Decoder, places: int) -> Tensor:
    """What the first block's attention reads for every word at every place: (places, words, width)."""
    h = model.token.weight[None] + model.position.weight[:places, None]
    return model.blocks[0].norm1(h)  # type: ignore[operator, union-attr, return-value]


@dataclass(frozen=True)
class Found:
    """sentences: lists of token numbers. scores: the sum of the judge's over their places. tested: candidates
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
def grow(model: Decoder, choices: list[Tensor], judge: Judge, limit: int, beam: int) -> Found:
    """All sentences whose every prefix the judge lets pass by what the second block reads at its end.

    choices: per place the words that may stand there. limit: most candidates tested at one place; beyond it the
    search stops. beam: most prefixes that go on from one place to the next, the surest ones.
    """
    usual = torch.linspace(0, len(model.token.weight) - 1, REFERENCES).long()  # words, nearly all of them wrong
    tables = FirstBlock(model, [torch.cat([words, usual]) for words in choices])
    prefixes, scores = torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
    found = Found([], [], 0, False)
    for place, words in enumerate(choices):
        count = len(prefixes) * len(words)
        if count > limit:
            found = replace(found, stopped=True)
            break
        any_prefix = torch.arange(REFERENCES) % len(prefixes)
        reference = tables.second_inputs(prefixes[any_prefix], len(words) + torch.arange(REFERENCES))
        which = torch.arange(len(prefixes)).repeat_interleave(len(words))
        last = torch.arange(len(words)).repeat(len(prefixes))
        step = max(1, CHUNK // ((place + 1) * model.width))
        judged = [
            judge(tables.second_inputs(prefixes[w], t), reference, scores[w] / max(1, place))
            for w, t in zip(which.split(step), last.split(step))
        ]
        passed, score = torch.cat([k for k, _ in judged]), scores[which] + torch.cat([s for _, s in judged])
        kept = torch.nonzero(passed).flatten()
        ended = torch.ones(len(prefixes), dtype=torch.bool).scatter_(0, which[kept], False)
        found = _finished(replace(found, tested=found.tested + count), choices, prefixes[ended], scores[ended])
        kept = kept[score[kept].argsort(stable=True)[:beam]]
        prefixes, scores = torch.cat([prefixes[which[kept]], last[kept, None]], dim=1), score[kept]
        if not len(prefixes):
            break
    return _finished(found, choices, prefixes, scores)


def _finished(found: Found, choices: list[Tensor], prefixes: Tensor, scores: Tensor) -> Found:
    """The same with these prefixes, positions in `choices`, as sentences."""
    if not prefixes.numel():
        return found
    columns = [choices[j][prefixes[:, j]] for j in range(prefixes.shape[1])]
    return replace(
        found, sentences=found.sentences + torch.stack(columns, dim=1).tolist(), scores=found.scores + scores.tolist()
    )
