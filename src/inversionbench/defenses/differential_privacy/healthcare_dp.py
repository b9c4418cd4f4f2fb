"""DP in healthcare models: noisy gradient descent of a clinical risk model (survey 4.4), a reconstruction.

Krall, Finke, Yang, "Gradient Mechanism to Preserve Differential Privacy and Deter Against Model Inversion Attacks in
Healthcare Analytics", IEEE EMBC 2020. Read: that noise enters the gradient descent of a model of intensive-care
records; its law could not be read, so both usual ones are here. With the rows bounded, ||x_i|| <= B, and T full-batch
steps:

    theta <- theta - (rate / n) (sum_i (p_i - y_i)(x_i, 1) + lambda n theta + noise)

law: gaussian with ||x||_2 <= B, (epsilon, delta) by Renyi composition; laplace with ||x||_1 <= B, (epsilon, 0) by basic
composition (`_bounded_rows` has both). Longer rows are shortened to B, in training and when the model is asked.
strength: 1 / epsilon of all T steps (0: off, no bound either); a larger one is more noise. lambda, rate and T are the
scenario's weight decay, rate and epochs.

Guarantee: per record; the number of records is public. Deviations: more than two classes by multinomial regression. The
scale of the columns comes from public rows (the data sets say so). Plain floating-point noise; the choice of rate and
bound is not paid for. The scenario's table stands for intensive-care records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from inversionbench.core.defense import Defense, Step
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Positive, Probability
from inversionbench.defenses.differential_privacy._bounded_rows import RELATION, Noise

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class HealthcareDp(Defense):
    """law: of the noise. bound: B, the largest norm of a row. delta: of the guarantee, where the law has one."""

    id = "healthcare_dp"
    hooks = frozenset({"build_model", "gradient"})
    inputs = ("table",)
    models = ("logistic",)

    law: Literal["gaussian", "laplace"] = "gaussian"
    bound: Positive = 3.0
    delta: Probability = 1e-5

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        if self.strength == 0:
            return factory()
        from inversionbench.models.tabular import Logistic, Rescaled

        model = factory()
        if not isinstance(model, Logistic):
            raise UserError(f"healthcare_dp: expected a logistic risk model, got {type(model).__name__}")
        return Rescaled(model, self.bound, self._noise(1).order)

    def gradient(self, gradients: dict[str, Tensor], ctx: Step) -> dict[str, Tensor]:
        if self.strength == 0:
            return gradients
        if ctx.step != ctx.epoch:
            raise UserError("healthcare_dp: every step takes all records: leave training.batch out")
        noise, n = self._noise(ctx.epochs, ctx.classes), len(ctx.x)
        return {name: g + noise.like(g, ctx.rng) / n for name, g in gradients.items()}

    def _noise(self, steps: int, classes: int = 2) -> Noise:
        return Noise(self.law, 1 / self.strength, self.delta, steps, self.bound, classes)

    def guarantee(self, rate: float, steps: int) -> dict[str, float]:
        return self._noise(steps).spent() if self.strength else {}

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        return (self._noise(steps).statement(),) if self.strength else ()

    def public_knowledge(self) -> dict[str, Any]:
        """The mechanism and its terms; not the noise."""
        return {"noise": self.law, "bound": self.bound, "inverse_epsilon": self.strength, "neighbours": RELATION}
