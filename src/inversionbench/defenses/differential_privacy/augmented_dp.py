"""Augmented DP: a disclosed tree that a DP model taught, with the sensitive attribute randomised; a reconstruction.

Alufaisan, Kantarcioglu, Zhou, "Robust Transparency Against Model Inversion Attacks", IEEE TDSC 18(5) (survey 4.4).
Read: that a second mechanism complements DP so that a transparent model is accurate and resists inversion. The
mechanism itself could not be read; of the constructions that keep this contract, this is the randomised sensitive
attribute:

1. s of every record by randomised response: kept with probability e^es / (e^es + V - 1), else one of the other values;
2. f: logistic regression by noisy gradient descent on these records (`_bounded_rows`, gaussian): (e, delta)-DP;
3. the target of the scenario is grown on *public* rows with the labels that f gives them, which is post-processing. So
   the tree can be read as a whole, its leaf counts included: they count public rows.

strength: 1 / e (0: off). sensitive_epsilon: es; 0 leaves out step 1, which is the control "DP alone". steps, rate,
bound, delta: of step 2.

Guarantee: e per record, and es for its sensitive value where that is less. Deviations: see above; the rules are a tree
of the scenario's depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.ranges import Count, NonNegative, Positive, Probability
from inversionbench.defenses._column import OfColumn
from inversionbench.defenses.differential_privacy._bounded_rows import RELATION, Noise

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.data.base import Dataset


@dataclass(frozen=True)
class AugmentedDp(OfColumn):
    """Parameters in the module docstring. public, classes: set by `prepare`."""

    id = "augmented_dp"
    hooks = frozenset({"training_set"})
    inputs = ("table",)
    models = ("tree", "pruned_tree")

    sensitive_epsilon: NonNegative = 1.0
    steps: Count = 50
    rate: Positive = 1.0
    bound: Positive = 3.0
    delta: Probability = 1e-5
    public: Tensor | None = None
    classes: Count = 2

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Any:
        return replace(super().prepare(data, factory, rng), public=data.public.tensor(), classes=data.classes)

    def training_set(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.strength == 0:
            return x, y
        assert self.public is not None
        x = x.clone()
        start, stop = self.column
        if self.sensitive_epsilon:
            x[:, start:stop] = randomised(x[:, start:stop], self.sensitive_epsilon, rng)
        taught = private_logistic(x, y, self._noise(), self.rate, rng)
        return self.public, taught(self.public)

    def _noise(self) -> Noise:
        return Noise("gaussian", 1 / self.strength, self.delta, self.steps, self.bound, self.classes)

    def guarantee(self, rate: float, steps: int) -> dict[str, float]:
        return self._noise().spent() | {"sensitive_epsilon": self.sensitive_epsilon} if self.strength else {}

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        if self.strength == 0:
            return ()
        own = f"construction: randomised sensitive attribute, local epsilon {self.sensitive_epsilon:g}"
        return (self._noise().statement(), own if self.sensitive_epsilon else "construction: DP alone")

    def public_knowledge(self) -> dict[str, Any]:
        """The mechanisms and their terms."""
        return {"noise": "gaussian", "inverse_epsilon": self.strength, "sensitive_epsilon": self.sensitive_epsilon,
                "neighbours": RELATION}  # fmt: skip


def randomised(value: Tensor, epsilon: float, rng: torch.Generator) -> Tensor:
    """Randomised response of one-hot values (n, V): the true one with probability e^epsilon / (e^epsilon + V - 1), else
    one of the others, equally likely."""
    import torch

    n, values = value.shape
    keep = 1 / (1 + (values - 1) * math.exp(-epsilon))
    other = (value.argmax(1) + torch.randint(1, values, (n,), generator=rng)) % values
    kept = torch.rand(n, generator=rng) < keep
    return torch.where(kept[:, None], value, torch.eye(values)[other].to(value))


def private_logistic(
    x: Tensor, y: Tensor, noise: Noise, rate: float, rng: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """Logistic regression of rows x (n, columns) and classes y (n,) by noisy full-batch gradient descent from zero; it
    gives the most likely class of further rows."""
    import torch

    from inversionbench.models.tabular import within

    def rows(of: Tensor) -> Tensor:
        return torch.cat([within(of, noise.bound, noise.order), of.new_ones(len(of), 1)], dim=1)

    inputs, truth = rows(x), torch.eye(noise.classes)[y, 1:]
    theta = torch.zeros(inputs.shape[1], noise.classes - 1)
    for _ in range(noise.steps):
        odds = torch.cat([torch.zeros(len(x), 1), inputs @ theta], dim=1)
        total = inputs.T @ (odds.softmax(1)[:, 1:] - truth)
        theta = theta - rate / len(x) * (total + noise.like(total, rng))
    return lambda of: torch.cat([torch.zeros(len(of), 1), rows(of) @ theta], dim=1).argmax(1)
