"""Sentences of a language model, and which of many are handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inversionbench.core.attack import Reconstruction
from inversionbench.models.encoder import Cache, advance
from inversionbench.models.text import END, PAD, START, UNKNOWN

if TYPE_CHECKING:
    from inversionbench.core.attack import Knowledge
    from inversionbench.models.text import Decoder

OWN = 2000  # sentences from which the language model's own frequencies are counted, the same for every attack


def likely(logits: Tensor, top: int) -> Tensor:
    """Probabilities (n, words) of what may follow: neither padding nor a mark of the start or of an unknown word, the
    `top` most likely words only (0: all)."""
    logits = logits.clone()
    logits[:, [PAD, START, UNKNOWN]] = -torch.inf
    if top:
        logits = logits.masked_fill(logits < logits.topk(top).values[:, -1:], -torch.inf)
    return logits.softmax(1)


def draw(share: Tensor, last: Tensor, rng: torch.Generator) -> Tensor:
    """The next word (n,); padding after the end."""
    word = torch.multinomial(share, 1, generator=rng)[:, 0]
    return word.masked_fill((last == END) | (last == PAD), PAD)


@torch.no_grad()
def sample(model: Decoder, n: int, top: int, rng: torch.Generator) -> Tensor:
    """Sentences of the language model alone: int64 (n, length), with start, end and padding."""
    x = torch.full((n, 1), START)
    cache: Cache = []
    while x.shape[1] < model.length:
        logits, cache = advance(model, x[:, -1], cache)
        x = torch.cat([x, draw(likely(logits, top), x[:, -1], rng)[:, None]], dim=1)
    return x


def best(x: Tensor, fit: Tensor, kept: int) -> Tensor:
    """The `kept` sentences that fit each class best, (classes, kept, length). x: (n, length), fit: (n, classes); or
    with a pool for each class (classes, n, length) and (classes, n)."""
    if x.dim() == 2:
        return x[fit.T.topk(kept, dim=1).indices]
    return torch.stack([pool[f.topk(kept).indices] for pool, f in zip(x, fit)])


def answer(x: Tensor, knowledge: Knowledge, **notes: Any) -> Reconstruction:
    """Sentences for each class (classes, kept, length) as an attack hands them over, with how often the language model
    itself names every word (words,): what is named more often, the target has said."""
    model = knowledge.prior.language
    alone = sample(model, OWN, 0, torch.Generator().manual_seed(0))
    own = alone.flatten().bincount(minlength=len(knowledge.words)).float() / OWN
    labels = torch.arange(len(x)).repeat_interleave(x.shape[1])
    return Reconstruction(x.flatten(0, 1), labels, notes={"own_frequency": own, **notes})
