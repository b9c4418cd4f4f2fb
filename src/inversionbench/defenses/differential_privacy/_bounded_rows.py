"""Noise for the gradients of a logistic regression whose rows are bounded: what one record can change, and how much.

Of a row x and the constant 1 of the intercept, the gradient is (p - y)(x, 1) with p, y the shares of all classes but
the first. With ||x|| <= B it has at most the norm

    L1:  c (B + 1)              c = 1 for two classes, else 2
    L2:  c sqrt(B^2 + 1)        c = 1 for two classes, else sqrt(2)

which is what adding or removing one record changes in the sum over records (in L1 and L2 norm, for Laplace and for
Gaussian noise). T sums, each from all records, are released:

    laplace    noise of scale T sensitivity / epsilon on each coordinate: (epsilon, 0), basic composition
    gaussian   noise of standard deviation sigma sensitivity: (epsilon, delta), Renyi composition without sampling
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inversionbench.defenses.differential_privacy._accounting import epsilon_exact, in_words, sigma_for

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Law = Literal["gaussian", "laplace"]
MEANINGFUL = 10.0  # an epsilon above this is not called private
RELATION = "add or remove one record, their number public"


@dataclass(frozen=True)
class Noise:
    """The noise of `steps` sums. bound: B, in the L1 norm for laplace, in the L2 norm for gaussian."""

    law: Law
    epsilon: float
    delta: float
    steps: int
    bound: float
    classes: int = 2

    @property
    def sensitivity(self) -> float:
        """L1 or L2 sensitivity of one sum.

        >>> Noise("laplace", 1.0, 1e-5, 10, 1.0, 2).sensitivity, Noise("gaussian", 1.0, 1e-5, 10, 1.0, 3).sensitivity
        (2.0, 2.0)
        """
        many = self.classes > 2
        if self.law == "laplace":
            return (2 if many else 1) * (self.bound + 1)
        return math.sqrt((2 if many else 1) * (self.bound**2 + 1))

    @property
    def order(self) -> int:
        """Of the norm that the bound is in."""
        return 1 if self.law == "laplace" else 2

    @property
    def scale(self) -> float:
        """Of one coordinate: Laplace's b, or the standard deviation."""
        if self.law == "laplace":
            return self.steps * self.sensitivity / self.epsilon
        return self.sensitivity * sigma_for(self.epsilon, self.steps, self.delta)

    def like(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Noise of the shape of x."""
        import torch

        if self.law == "gaussian":
            return self.scale * torch.randn(x.shape, generator=rng).to(x)
        u = torch.rand(x.shape, generator=rng, dtype=torch.float64) - 0.5
        return (-self.scale * u.sign() * torch.log1p(-2 * u.abs())).clamp(-1e30, 1e30).to(x)

    def spent(self) -> dict[str, float]:
        """epsilon of one step and of all, delta."""
        pure = self.law == "laplace"
        one = self.epsilon / self.steps if pure else epsilon_exact(self.scale / self.sensitivity, self.delta)
        return {"epsilon_round": one, "epsilon_total": self.epsilon, "delta": 0.0 if pure else self.delta,
                "private": float(self.epsilon <= MEANINGFUL)}  # fmt: skip

    def statement(self) -> str:
        """The same in words."""
        norm, how = ("L1", "basic composition") if self.law == "laplace" else ("L2", "RDP, one step exact Gaussian")
        said = f"{how}, rows of {norm} norm at most {self.bound:g}"
        return in_words(self.spent(), (f"{self.steps} steps", "one"), "record", RELATION, said)
