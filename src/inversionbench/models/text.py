"""A small causal language model, and its words.

    h = token[x] + position                                    learned positions, counted from the left
    per block: h = h + out(attention(qkv(norm1(h))))           causal, one fused projection for q, k and v
               h = h + down(gelu(up(norm2(h))))
    task "language": logits of the next word at every place    (batch, words, places)
    task "class":    logits of the class at the last word      (batch, classes)

Sentences are `<start> words <end>`, padded on the right; what stands to the right of a word never reaches it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.models.base import Trace

PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
IGNORED = -100  # a target that the loss leaves out
EMBEDDING = 0.1  # standard deviation of the initial embeddings


@dataclass(frozen=True)
class Tokenizer:
    """Words and their numbers; the first four are `SPECIAL`."""

    words: tuple[str, ...]

    @cached_property
    def number(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def encode(self, texts: Iterable[str], length: int) -> Tensor:
        """int64 (n, length): start, at most length - 2 words, end, padding."""
        rows = []
        for text in texts:
            ids = [self.number.get(word, UNKNOWN) for word in split(text)][: length - 2]
            rows.append([START, *ids, END] + [PAD] * (length - 2 - len(ids)))
        return torch.tensor(rows, dtype=torch.int64).view(-1, length)

    def decode(self, ids: Iterable[int]) -> str:
        """Words with spaces between them; padding, start and end are left out."""
        return " ".join(self.words[i] for i in map(int, ids) if i not in (PAD, START, END))


def split(text: str) -> list[str]:
    """Lower-case words and numbers, every other sign alone.

    >>> split("Mr. Li's dose: 40 mg")
    ['mr', '.', "li's", 'dose', ':', '40', 'mg']
    """
    return re.findall(r"[a-z0-9']+|[^\sa-z0-9']", text.lower())


def learn_words(texts: Iterable[str], size: int) -> Tokenizer:
    """The `size` most frequent words, special ones included; equally frequent ones in alphabetical order."""
    counts = Counter(word for text in texts for word in split(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return Tokenizer((*SPECIAL, *ranked[: size - len(SPECIAL)]))


def targets(x: Tensor) -> Tensor:
    """The next token at every place of x (n, length), `IGNORED` where none follows."""
    following = F.pad(x[:, 1:], (0, 1), value=PAD)
    return following.masked_fill(following == PAD, IGNORED)


class Block(nn.Module):
    """One layer of the decoder. h: (batch, places, width)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        batch, places, width = h.shape
        q, k, v = (
            part.view(batch, places, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(h)).chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.rest(h, seen.transpose(1, 2).reshape(batch, places, width))

    def follow(self, h: Tensor, past: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Many candidates for the next place after one known prefix each: what `forward` makes of them there.

        h: (batch, candidates, width). past: keys and values of the prefix, each (batch, heads, places, width of a
        head). Returns h after this layer, and the candidates' own keys and values (batch, heads, candidates, ...).
        """
        batch, candidates, width = h.shape
        q, k, v = (
            part.view(batch, candidates, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(h)).chunk(3, -1)
        )
        scores = torch.cat([q @ past[0].transpose(2, 3), (q * k).sum(-1, keepdim=True)], -1)
        weights = (scores / math.sqrt(q.shape[-1])).softmax(-1)
        seen = weights[..., :-1] @ past[1] + weights[..., -1:] * v
        return self.rest(h, seen.transpose(1, 2).reshape(batch, candidates, width)), (k, v)

    def rest(self, h: Tensor, seen: Tensor) -> Tensor:
        """What follows the attention; every place for itself. seen: what the heads read, like h."""
        h = h + self.out(seen)
        return h + self.down(F.gelu(self.up(self.norm2(h))))


class Decoder(nn.Module):
    """x: int64 (batch, places) -> logits; module docstring."""

    def __init__(self, options: Mapping[str, Any], words: int, classes: int):
        super().__init__()
        width = options["width"]
        self.task, self.length, self.width = options["task"], options["length"], width
        self.token, self.position = nn.Embedding(words, width), nn.Embedding(options["length"], width)
        nn.init.normal_(self.token.weight, std=EMBEDDING)
        nn.init.normal_(self.position.weight, std=EMBEDDING)
        self.blocks = nn.ModuleList(Block(width, options["heads"]) for _ in range(options["blocks"]))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words if self.task == "language" else classes)

    def trace(self, x: Tensor) -> Trace:
        h, hidden = self.token(x) + self.position.weight[: x.shape[1]], {}
        for i, block in enumerate(self.blocks):
            h = hidden[f"block{i}"] = block(h)
        h = self.norm(h)
        if self.task == "language":
            return Trace(self.head(h).transpose(1, 2), None, hidden)
        last = (x != PAD).sum(1) - 1
        features = h[torch.arange(len(x)), last]
        return Trace(self.head(features), features, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits


def hold(model: nn.Module, trained: Callable[[str], bool]) -> nn.Module:
    """Turn every parameter whose name is not `trained` into a buffer: it is neither trained nor sent."""
    for prefix, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not trained(f"{prefix}.{name}".lstrip(".")):
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
    return model


def sentences(tokens: Tensor, sizes: Sequence[int]) -> list[list[list[int]]]:
    """Per client its sentences as lists of token numbers, without padding. tokens: (clients, largest, length)."""
    return [[[t for t in row if t != PAD] for row in rows[:n].tolist()] for rows, n in zip(tokens, sizes)]
