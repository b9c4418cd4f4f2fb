"""DGC, deep gradient compression (survey 4.2; Lin, Han, Mao, Wang, Dally, ICLR 2018).

A compression method that the field uses as a defense. Per client and weight tensor, with momentum buffer u and
velocity v, both zero before the client's first round:

    G <- G min(1, clip / sqrt(clients) / ||G||)      local clipping, norm over all tensors, before accumulation
    u <- m u + G,   v <- v + u                       momentum correction: the velocity is accumulated
    send the k = ceil((1 - sparsity) d) largest |v|  per tensor, exact
    v, u <- 0 where sent                             residual and momentum factor masking

One-dimensional parameters (biases, norms) are sent dense with ordinary momentum. Over the first `warm_up`
rounds the kept fraction falls exponentially, max(c^(t + 1), rho) with c = rho^(1 / (warm_up + 1)), rho the
final one. The server then takes a plain step: momentum there would count twice.

strength: the final sparsity, the fraction of entries not sent (0: off). An attacked client takes part for the
first time, so its u and v are empty and it sends entries of one gradient: the worst case for privacy. With
warm_up > 0 the first round sends more than the final fraction.

Deviations: exact selection instead of a sampled threshold (tensors are small). warm_up and clip are off unless
set. residual, masking: the ingredients, to be switched off in ablations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense
from inversionbench.core.ranges import NonNegative, ShareBelowOne, Whole

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dgc(Defense):
    """momentum: m. clip: threshold of the whole federation, 0 = off. warm_up: rounds."""

    id = "dgc"
    hooks = frozenset({"client_update"})
    federated = True
    effect = ("cos_sent_true", "lower", 0.999)
    places = ("compensate", "transform")
    gives = "sparse"
    client_momentum = True  # the server adds none

    momentum: ShareBelowOne = 0.9
    clip: NonNegative = 0.0
    warm_up: Whole = 0
    residual: bool = True
    masking: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.strength < 1:
            raise ValueError(f"dgc: strength is a sparsity in [0, 1), got {self.strength}")

    def kept(self, round: int) -> float:
        """The fraction of a weight tensor that is sent in a round (from 0)."""
        rho = 1 - self.strength
        if round >= self.warm_up:
            return rho
        return max(rho ** ((round + 1) / (self.warm_up + 1)), rho)

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        if self.strength == 0:
            return update
        scale = 1.0
        if self.clip:
            norm = math.sqrt(sum(float(g.square().sum()) for g in update.values()))
            scale = min(1.0, self.clip / math.sqrt(ctx.clients) / max(norm, 1e-30))
        memory = ctx.state.setdefault("dgc", {})
        fraction = self.kept(ctx.round)
        return {name: self._send(g * scale, memory.setdefault(name, {}), fraction) for name, g in update.items()}

    def _send(self, g: Tensor, memory: dict[str, Tensor], fraction: float) -> Tensor:
        """One tensor: update the memory, return what is sent."""
        u = memory["u"] * self.momentum + g if "u" in memory else g.clone()
        if g.ndim < 2:
            memory["u"] = u
            return u
        v = memory["v"] + u if "v" in memory else u.clone()
        sent, mask = select(v, fraction)
        memory["u"] = u * ~mask if self.masking else u
        memory["v"] = (v * ~mask) if self.residual else v * 0
        return sent

    def bytes_sent(self, update: dict[str, Tensor]) -> int:
        """Values of 4 bytes, and for each weight tensor the cheaper of 4-byte indices and a bitmap."""
        from inversionbench.defenses.gradient_pruning._ranks import sparse_bytes

        if self.strength == 0:
            return super().bytes_sent(update)
        return sum(sparse_bytes(int((t != 0).sum()), t.numel()) if t.ndim > 1 else 4 * t.numel()
                   for t in update.values())  # fmt: skip

    def public_knowledge(self) -> dict[str, Any]:
        """The rule; which entries were sent is visible in every upload."""
        return {"sparsity": self.strength, "support": "non-zero entries", "momentum": self.momentum}


def select(v: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """The ceil(fraction * d) entries of largest magnitude: (v there and 0 elsewhere, their mask).

    >>> import torch
    >>> select(torch.tensor([[0.1, -3.0], [2.0, 0.5]]), 0.5)[0]
    tensor([[ 0., -3.],
            [ 2.,  0.]])
    """
    from inversionbench.defenses.gradient_pruning._ranks import band

    mask = band(v, 0, math.ceil(round(fraction * v.numel(), 6)))
    return v * mask, mask
