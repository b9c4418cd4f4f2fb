"""DGP, dual gradient pruning (survey 4.2; Xue, Hu, Zhao, Zhang, Hu, Sun, Yao, AAAI 2024).

Removing only small entries leaves those by which an inversion finds its direction. DGP removes both ends, in each
tensor (biases too), with a memory E of everything that was not sent:

    V = G + feedback E
    zero the floor(top d) largest |V|, keep of the rest the floor((1 - strength) d) largest
    E <- V - sent

strength: the share of entries not sent (0: off); top: the share of the largest that is removed. The published pair is
strength 0.8, top 0.05. The server takes its ordinary step with momentum.

Small tensors: at least one entry is removed from the top and one is sent, except that a tensor of one entry is sent
as it is: an intact bias beside a linear layer would give the input away exactly.

Deviations: the variant that aligns all clients to the index set of one of them (to make the download sparse) is not
here; the round factor of the feedback is its default, 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense
from inversionbench.core.ranges import Share

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dgp(Defense):
    """top: share of the largest entries removed. feedback: of the residual; 0 forgets it (an ablation)."""

    id = "dgp"
    hooks = frozenset({"client_update"})
    federated = True
    effect = ("cos_sent_true", "lower", 0.999)
    places = ("compensate", "transform")
    gives = "sparse"

    top: Share = 0.05
    feedback: Share = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength < 1:
            raise ValueError(f"dgp: strength is a share of entries in [0, 1), got {self.strength}")
        if self.top < 0 or (self.strength and self.top > self.strength):
            raise ValueError(f"dgp: top is a part of what is not sent (0 to {self.strength}), got {self.top}")

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        if self.strength == 0:
            return update
        memory = ctx.state.setdefault("dgp", {})
        sent = {}
        for name, g in update.items():
            v = g + self.feedback * memory[name] if name in memory and self.feedback else g
            sent[name] = prune(v, self.top, 1 - self.strength)
            memory[name] = v - sent[name]
        return sent

    def bytes_sent(self, update: dict[str, Tensor]) -> int:
        from inversionbench.defenses.gradient_pruning._ranks import sparse_bytes

        if self.strength == 0:
            return super().bytes_sent(update)
        return sum(sparse_bytes(int((t != 0).sum()), t.numel()) for t in update.values())

    def public_knowledge(self) -> dict[str, Any]:
        """The rule; which entries were sent is visible in every upload."""
        return {"sparsity": self.strength, "top": self.top, "support": "non-zero entries", "feedback": self.feedback}


def counts(entries: int, top: float, kept: float) -> tuple[int, int]:
    """How many of the largest entries are removed, and how many of the next are sent.

    >>> counts(400, 0.05, 0.2), counts(10, 0.05, 0.2), counts(1, 0.05, 0.2)
    ((20, 80), (1, 2), (0, 1))
    """
    if entries == 1:
        return 0, 1
    skip = max(1, int(round(top * entries, 6))) if top else 0
    return skip, max(1, int(round(kept * entries, 6)))


def prune(v: Tensor, top: float, kept: float) -> Tensor:
    """v with both ends of its magnitudes set to 0.

    >>> import torch
    >>> prune(torch.tensor([5.0, -4.0, 3.0, 2.0, 1.0]), 0.2, 0.4)
    tensor([ 0., -4.,  3.,  0.,  0.])
    """
    from inversionbench.defenses.gradient_pruning._ranks import band

    return v * band(v, *counts(v.numel(), top, kept))
