"""Reconstruction robustness: what differential privacy proves against every reconstruction (Balle, Cherubin, Hayes, S&P
2022; Hayes, Mahloujifar, Balle, "Bounding Training Data Reconstruction in DP-SGD", NeurIPS 2023).

kappa: the chance that an answer without the release counts as a success (of the best guess under what the attacker
knows). Let P be what is released of a data set with the record, Q without it. Over all events E

    gamma = sup { P(E): Q(E) <= kappa }      bounds the chance of success of anybody who sees the release

By Neyman and Pearson the best E is where the ratio P / Q is largest. For T Gaussian releases of sensitivity 1 and
deviation sigma the log ratio is normal under both, at distance mu = sqrt(T) / sigma:

    gamma = Phi(Phi^-1(kappa) + mu)

With Poisson sampling at rate q every release is dominated by P = (1 - q) N(0, s^2) + q N(1, s^2) against Q = N(0, s^2);
the sum of log ratios has no simple law and is drawn (`sampled`). Pure epsilon, delta give kappa e^epsilon + delta.
"""

from __future__ import annotations

import math
from functools import cache

KAPPA = 0.1  # chance of a guess for which records state a bound


def gaussian(kappa: float, mu: float) -> float:
    """gamma of Gaussian releases at distance mu. kappa in [0, 1]; returns [kappa, 1].

    >>> [round(gaussian(0.1, mu), 3) for mu in (0.0, 0.5, 1.0, 4.0)]
    [0.1, 0.217, 0.389, 0.997]
    """
    from scipy.special import ndtr, ndtri

    return float(ndtr(ndtri(kappa) + mu)) if 0 < kappa < 1 else float(kappa)


def approximate(kappa: float, epsilon: float, delta: float) -> float:
    """gamma of any (epsilon, delta) mechanism.

    >>> round(approximate(0.1, 1.0, 1e-5), 3), approximate(0.1, 10.0, 0.0)
    (0.272, 1.0)
    """
    return min(1.0, kappa * math.exp(min(epsilon, 700.0)) + delta)


@cache
def sampled(
    kappa: float, sigma: float, rate: float, steps: int, draws: int = 20_000, seed: int = 0
) -> tuple[float, float]:
    """gamma of `steps` releases with Poisson sampling at `rate`, by Monte Carlo: (estimate, upper end of 95 %).

    The upper end takes the lowest threshold that `draws` under Q allow and the largest share that as many under P do,
    each at 97.5 %.
    """
    import numpy as np
    from scipy.stats import beta, binom

    rng = np.random.default_rng(seed)
    without, with_it = (_log_ratios(sigma, rate, steps, draws, rng, present) for present in (False, True))
    without.sort()
    above = round(kappa * draws)
    fewest = int(binom.ppf(0.975, draws, kappa))  # draws above a threshold whose true share is kappa: at most so many
    estimate, hits = ((with_it > without[max(0, draws - 1 - n)]).sum() for n in (above, fewest))
    high = beta.ppf(0.975, hits + 1, draws - hits) if hits < draws else 1.0
    return float(estimate / draws), float(high)


def _log_ratios(sigma: float, rate: float, steps: int, draws: int, rng, present: bool):  # type: ignore[no-untyped-def]
    """ln P / Q of drawn releases, float64 (draws,)."""
    import numpy as np

    total = np.zeros(draws)
    for _ in range(steps):
        seen = sigma * rng.standard_normal(draws)
        if present:
            seen += rng.random(draws) < rate
        total += np.logaddexp(math.log1p(-rate) if rate < 1 else -np.inf, math.log(rate) + (seen - 0.5) / sigma**2)
    return total
