"""A small transformer that classifies sentences, and a decoder's next word with the keys and values of all before it.

    e = token[reads[x]] + position                     reads: as which word a word is read; by default itself
    per block: h = h + out(attention(qkv(norm1(h))))   padding is not attended to
               h = h + down(gelu(up(norm2(h))))
    logits = head(mean of norm(h) over the places that are no padding)

Attention is written out: then the gradient of every sentence on its own can be taken at once, and a soft word, a
mixture of embeddings, goes the way of a real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.models.base import Trace
from inversionbench.models.text import EMBEDDING, PAD, Block, Decoder

Cache = list[tuple[Tensor, Tensor]]  # per block keys and values, each (batch, heads, places, width / heads)


class Encoder(nn.Module):
    """x: int64 (batch, places) -> logits (batch, classes); module docstring."""

    vectorised = True  # torch.func can take the gradient of every sentence
    reads: Tensor

    def __init__(self, options: Mapping[str, Any], words: int, classes: int):
        super().__init__()
        width = options["width"]
        self.made_of = dict(options), words, classes
        self.token, self.position = nn.Embedding(words, width), nn.Embedding(options["length"], width)
        nn.init.normal_(self.token.weight, std=EMBEDDING)
        nn.init.normal_(self.position.weight, std=EMBEDDING)
        self.blocks = nn.ModuleList(Block(width, options["heads"]) for _ in range(options["blocks"]))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)
        self.register_buffer("reads", torch.arange(words))

    def untrained(self) -> Encoder:
        """The same architecture with fresh weights, from the global generator."""
        fresh = Encoder(*self.made_of)
        fresh.reads.copy_(self.reads)
        return fresh.eval()

    def embeddings(self) -> Tensor:
        """What every word is read as: (words, width)."""
        return self.token.weight[self.reads]

    def soft(self, e: Tensor, real: Tensor) -> Trace:
        """From embeddings. e: (batch, places, width) without positions; real: bool (batch, places), no padding."""
        h, hidden = e + self.position.weight[: e.shape[1]], {}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            q, k, v = _heads(block, h)
            h = hidden[f"block{i}"] = block.rest(h, _attend(q, k, v, real[:, None, None]))
        h = self.norm(h) * real[..., None]
        features = h.sum(1) / real.sum(1, keepdim=True)
        return Trace(self.head(features), features, hidden)

    def trace(self, x: Tensor) -> Trace:
        return self.soft(self.embeddings()[x], x != PAD)

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits


def _heads(block: Block, h: Tensor) -> Sequence[Tensor]:
    """Queries, keys, values (batch, heads, places, width / heads) of one block. h: (batch, places, width)."""
    batch, places, _ = h.shape
    parts = block.qkv(block.norm1(h)).chunk(3, -1)
    return [part.reshape(batch, places, block.heads, -1).transpose(1, 2) for part in parts]


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    """What the heads read, (batch, places of q, width). seen: bool, broadcast to (batch, heads, places, places)."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if seen is not None:
        scores = scores.masked_fill(~seen, -1e9)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def advance(model: Decoder, x: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
    """The next word's logits (batch, words) after the word x (batch,), and the cache with x in it. cache: keys and
    values of all words before; [] at the start."""
    place = cache[0][0].shape[2] if cache else 0
    h, grown = (model.token(x) + model.position.weight[place])[:, None], []
    for i, block in enumerate(model.blocks):
        q, k, v = _heads(block, h)  # type: ignore[arg-type]
        if cache:
            k, v = torch.cat([cache[i][0], k], 2), torch.cat([cache[i][1], v], 2)
        grown.append((k, v))
        h = block.rest(h, _attend(q, k, v, None))  # type: ignore[operator]
    return model.head(model.norm(h))[:, 0], grown
