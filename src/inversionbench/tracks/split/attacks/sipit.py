"""SIPIT: sentences from the hidden states of a causal language model (Nikolaou et al.: Language Models are Injective
and Hence Invertible, ICLR 2026).

The state at a place depends on the tokens up to it, so one token after the other is the vocabulary entry that
reproduces the observed state after the recovered prefix:

    x_t = argmin_v | f(x_<t, v)_t - h_t |

All words are tried at every place, in one tensor; the paper tries them in the order of a gradient until one lies within
a tolerance, which exact states need and noisy ones do not have. FT-WB: the client half is known.

releases: mean of so many releases of each sentence, where a defense draws noise. pairs > 0: the attacker first learns a
rotation between his states and those that are sent, from so many public sentences (orthogonal Procrustes problem:
R = U V' with U S V' the decomposition of A'B, for states A of his own and B that the client sends), and undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, Whole
from inversionbench.models.split import Embedded
from inversionbench.models.text import Block, Tokenizer

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Sipit(Attack):
    """Module docstring."""

    id: ClassVar[str] = "sipit"
    level: ClassVar[str] = "FT-WB"
    asks: ClassVar[str] = "text"

    releases: Count = 1
    pairs: Whole = 0

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        client, h = oracle.client_module(), oracle.observe(self.releases).mean(0)
        if self.pairs:
            h = h @ self.rotation(oracle, client, knowledge, rng).T
        where = next(client.parameters()).device
        found, gap = invert(list(client.model), h.to(where))
        client.charge(len(h) * h.shape[1] * knowledge.classes, "search")
        notes = {"gap": float(gap), "adaptive": bool(self.pairs) or self.releases > 1}
        return Reconstruction(found.cpu(), torch.zeros(len(h), dtype=torch.int64), notes=notes)

    def rotation(self, oracle: Oracle, client: nn.Module, knowledge: Knowledge, rng: torch.Generator) -> Tensor:
        """R (width, width) with sent = own R, from states of public sentences."""
        rows = torch.randperm(len(knowledge.public), generator=rng)[: self.pairs].numpy()
        x = Tokenizer(tuple(knowledge.words)).encode(map(str, knowledge.public.x[rows]), knowledge.shape[0])
        with torch.no_grad():
            own = client(x.to(next(client.parameters()).device)).cpu()
        u, _, v = torch.linalg.svd(own.flatten(0, 1).T @ oracle.features(x).flatten(0, 1))
        return u @ v


@torch.no_grad()
def invert(layers: list[nn.Module], h: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (n, places) for states h (n, places, width), and the mean distance of the states they make.

    layers: the client half, `Embedded` first, then blocks and layers that act on every place for itself.
    """
    embedded = layers[0]
    assert isinstance(embedded, Embedded)
    n, places, _ = h.shape
    past: dict[int, tuple[Tensor, Tensor]] = {}
    found, gaps = [], []
    for t in range(places):
        z = (embedded.token.weight + embedded.position.weight[t]).expand(n, -1, -1)
        own = {}
        for i, layer in enumerate(layers[1:]):
            if isinstance(layer, Block):
                head = z.shape[2] // layer.heads
                none = z.new_zeros(n, layer.heads, 0, head)
                z, own[i] = layer.follow(z, past.get(i, (none, none)))
            else:
                z = layer(z)
        gap, token = (z - h[:, t, None]).square().sum(2).min(1)
        for i, kept in own.items():
            at = token.view(n, 1, 1, 1).expand(-1, kept[0].shape[1], 1, kept[0].shape[3])
            new = [part.gather(2, at) for part in kept]
            past[i] = (new[0], new[1]) if t == 0 else (torch.cat([past[i][0], new[0]], 2),
                                                       torch.cat([past[i][1], new[1]], 2))  # fmt: skip
        found.append(token)
        gaps.append(gap.sqrt())
    return torch.stack(found, 1), torch.stack(gaps).mean()
