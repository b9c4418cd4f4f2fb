"""Edge randomised response (EdgeRand): the graph is noised before anything is trained on it, or answered from it.

Wu, Long, Zhang, Li, "LinkTeller: Recovering Private Edges from Graph Neural Networks via Influence Analysis", IEEE
S&P 2022, section 5; randomised response of Warner (1965). Each pair of nodes independently keeps its bit with
probability 1 - s and gets a fair coin with probability s = strength, so a bit is flipped with probability s / 2:

    epsilon = ln((1 - s / 2) / (s / 2)) = ln(2 / s - 1),    s = 2 / (1 + e^epsilon)

Guarantee: pure epsilon differential privacy of each edge, against everybody who sees anything made from the noised
graph: weights and answers. Neighbours: one pair joined or not. Features and labels have none. epsilon 6, 5, 4 and 3
are s = 0.00495, 0.0134, 0.036 and 0.0949; 1 is a random graph. Sparse graphs drown: of n (n - 1) / 2 pairs nearly all
are empty, so that flipped bits soon outnumber the edges; the noised graph is deployed, and accuracy is measured on it.

An attacker who knows s has nothing to undo: the noise is the same for all pairs and leaves their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class EdgeRandomisedResponse(Defense):
    """strength: s, the share of pairs whose bit is a fair coin, in [0, 1]."""

    id: ClassVar[str] = "edge_randomised_response"
    hooks: ClassVar[frozenset[str]] = frozenset({"training_set"})
    inputs: ClassVar[tuple[str, ...]] = ("graph",)

    strength: Share = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength: expected a share from 0 to 1, got {self.strength}")

    def training_set(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """x: adjacency (n, n), symmetric, of zeros and ones."""
        if self.strength == 0:
            return x, y
        if x.dim() != 2 or x.shape[0] != x.shape[1]:
            raise ValueError(f"expected an adjacency (n, n), got {tuple(x.shape)}")
        return noised(x, self.strength, rng), y

    def guarantee(self, rate: float, steps: int) -> dict[str, float]:
        return {"epsilon": epsilon(self.strength)} if self.strength else {}

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        if not self.strength:
            return ()
        return (f"epsilon {epsilon(self.strength):.3g}, delta 0; edge level, neighbours: one pair joined or not; "
                "randomised response before training, once",)  # fmt: skip

    def public_knowledge(self) -> dict[str, Any]:
        return {"noise": "randomised response", "share": self.strength}


def epsilon(share: float) -> float:
    """ln(2 / s - 1) for s in (0, 1].

    >>> [round(epsilon(s), 2) for s in (0.0949, 0.5, 1.0)]
    [3.0, 1.1, 0.0]
    """
    return math.log(2 / share - 1)


def noised(adjacency: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """A fair coin for each pair with probability `share`; symmetric, of the same type, with an empty diagonal."""
    import torch

    coin, chosen = torch.rand(2, *adjacency.shape, generator=rng)
    lower = torch.where(chosen < share, (coin < 0.5).to(adjacency.dtype), adjacency).tril(-1)
    return lower + lower.mT
