"""DP-SGD, at one place or at a client (survey 4.4, baseline; Abadi et al., ACM CCS 2016), by Opacus.

In every step (of a client, its local ones), with C the clip, sigma the noise multiplier and B the expected lot size:

    lot: each example enters on its own with probability q = B / records
    g_i <- g_i min(1, C / ||g_i||)                 the norm over all parameters of one example's gradient
    g  = (1 / B) (sum_i g_i + N(0, sigma^2 C^2 I))

B is the expected size, never the actual one, and an empty lot still sends noise. strength: sigma (0: off, no
clipping either). Clipping, noise and scaling are Opacus' optimiser's; per-example gradients are Opacus' where it
has a rule for every layer, torch.func's elsewhere; the accountants are Opacus', too.

Guarantee: per example of one client, against everybody who sees that client's steps (the server included); without
clients per example, against everybody who sees the model.
Neighbours: add or remove one record. `guarantee` counts every step that was sent, with the RDP accountant; the
attacked round alone is stated without credit for sampling (the record is in the lot), by the exact condition of
the Gaussian mechanism. `bound_step` and `bound_total` are what that proves against any reconstruction that a guess gets
right in 10 % of the cases (`_robustness`; the total by Monte Carlo, upper end); the report draws the bound at what its
own controls guess. This is not the client-level guarantee of `local_dp`; the two epsilons do not compare.

Deviations: the attacked lot is one that came out at its expected size. Plain floating-point noise. The choice of
sigma and C is not paid for. Networks without batch norm only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense, Step
from inversionbench.core.ranges import Positive, Probability

if TYPE_CHECKING:
    from torch import Tensor

MEANINGFUL = 10.0  # a total epsilon above this is not called private
RELATION = "add or remove one record"
ACCOUNTANTS = ("rdp", "prv")


@dataclass(frozen=True)
class DpSgd(Defense):
    """clip: C. delta: of the guarantee. accountant: "rdp" or "prv" (tighter), for the total."""

    id = "dp_sgd"
    hooks = frozenset({"gradient"})
    inputs = ("image", "table", "text", "graph")  # of a graph, a sample is the term of one node in the loss
    poisson = True

    clip: Positive = 1.0
    delta: Probability = 1e-5
    accountant: str = "rdp"

    def __post_init__(self) -> None:
        if self.strength < 0 or self.clip <= 0 or not 0 < self.delta < 1 or self.accountant not in ACCOUNTANTS:
            raise ValueError(
                f"dp_sgd: expected strength >= 0, clip > 0, 0 < delta < 1, accountant {' or '.join(ACCOUNTANTS)}, "
                f"got {self.strength}, {self.clip}, {self.delta}, '{self.accountant}'"
            )

    def gradient(self, gradients: dict[str, Tensor], ctx: Step) -> dict[str, Tensor]:
        if self.strength == 0:
            return gradients
        from inversionbench.defenses.differential_privacy._per_sample import per_sample

        samples = per_sample(ctx.model, ctx.x, ctx.y)
        lot = ctx.expected or float(len(ctx.x))
        return private_mean(samples, self.clip, self.strength, lot, ctx.rng)

    def guarantee(self, rate: float, steps: int) -> dict[str, float]:
        """What the record holds: epsilon of the attacked step and of all `steps` at sampling rate `rate`."""
        if self.strength == 0:
            return {}
        from inversionbench.defenses.differential_privacy._accounting import epsilon_exact
        from inversionbench.defenses.differential_privacy._robustness import KAPPA, gaussian, sampled

        rate = min(1.0, rate)  # a batch as large as the client's set: everything, always
        total = epsilon(rate, self.strength, steps, self.delta, self.accountant)
        return {
            "epsilon_round": epsilon_exact(self.strength, self.delta),
            "epsilon_total": total,
            "delta": self.delta,
            "sampling_rate": rate,
            "mu_step": 1 / self.strength,
            "bound_step": gaussian(KAPPA, 1 / self.strength),
            "bound_total": (gaussian(KAPPA, steps**0.5 / self.strength) if rate == 1 or not steps
                            else sampled(KAPPA, self.strength, rate, steps)[1]),
            "private": float(total <= MEANINGFUL),
        }

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        if self.strength == 0:
            return ()
        from inversionbench.defenses.differential_privacy._accounting import in_words

        how = f"Opacus {self.accountant.upper()} at sampling rate {min(1.0, rate):.3g}, one step exact without sampling"
        return (in_words(self.guarantee(rate, steps), (f"{steps} steps", "one"), "example", RELATION, how),)

    def public_knowledge(self) -> dict[str, Any]:
        """The mechanism, its scale and its guarantee's terms; neither noise nor lot."""
        return {
            "noise": "gaussian", "clip": self.clip, "multiplier": self.strength, "unit": "example of one client",
            "neighbours": RELATION, "accountant": f"opacus {self.accountant}", "delta": self.delta,
        }  # fmt: skip


def private_mean(samples: dict[str, Tensor], clip: float, sigma: float, lot: float, rng: Any) -> dict[str, Tensor]:
    """(1 / lot) (sum of clipped per-example gradients + noise). samples: name -> (n, *shape), n may be 0."""
    import torch
    from opacus.optimizers import DPOptimizer

    held = {name: torch.nn.Parameter(torch.zeros_like(t.sum(0))) for name, t in samples.items()}
    for name, p in held.items():
        p.grad_sample = samples[name].detach()  # type: ignore[attr-defined]  # a new tensor: Opacus marks used ones
    optimiser = DPOptimizer(
        torch.optim.SGD(list(held.values()), lr=1.0), noise_multiplier=sigma, max_grad_norm=clip,
        expected_batch_size=lot, loss_reduction="mean", generator=rng,
    )  # fmt: skip
    optimiser.clip_and_accumulate()
    optimiser.add_noise()
    optimiser.scale_grad()
    return {name: p.grad.detach() for name, p in held.items()}  # type: ignore[union-attr]


@cache
def epsilon(rate: float, sigma: float, steps: int, delta: float, accountant: str = "rdp") -> float:
    """Epsilon of `steps` lots at Poisson rate `rate`, by Opacus' accountant."""
    import warnings

    from opacus.accountants import PRVAccountant, RDPAccountant

    made = PRVAccountant() if accountant == "prv" else RDPAccountant()
    made.history = [(sigma, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best order is the first or last one
        return float(made.get_epsilon(delta))
