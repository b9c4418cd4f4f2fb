"""Privacy accounting for Gaussian noise: Renyi DP over many releases, the exact condition for one.

All relations are those of the caller: sigma is the noise standard deviation divided by the L2 sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

LARGEST = 1e9  # of noise multipliers that are looked at
ORDERS: tuple[float, ...] = (*(1 + k / 10 for k in range(1, 100)), *range(12, 64))


@cache  # every client of every round asks the same
def epsilon_gaussian(sigmas: tuple[float, ...], delta: float) -> float:
    """Epsilon of all releases together, each with its own sigma (each whole data set, no sampling): the least over
    orders a of rdp + ln((a - 1) / a) - (ln delta + ln a) / (a - 1), rdp = sum a / (2 sigma^2) (Mironov 2017).

    >>> round(epsilon_gaussian((10.0,) * 50, 1e-5), 2), round(epsilon_gaussian((5.0,), 1e-5), 3)
    (3.19, 0.795)
    """
    inverse = sum(1 / s**2 for s in sigmas)
    found = (a * inverse / 2 + math.log((a - 1) / a) - math.log(delta * a) / (a - 1) for a in ORDERS)
    return max(0.0, min(found))


@cache
def sigma_for(epsilon: float, steps: int, delta: float) -> float:
    """The least noise multiplier whose `steps` whole-data releases cost at most epsilon by `epsilon_gaussian`.

    >>> round(epsilon_gaussian((sigma_for(3.0, 50, 1e-5),) * 50, 1e-5), 6)
    3.0
    """
    low, high = 0.0, 1.0
    while epsilon_gaussian((high,) * steps, delta) > epsilon:
        low, high = high, 2 * high
        if high > LARGEST:
            raise ValueError(f"no noise reaches epsilon {epsilon} in {steps} steps at delta {delta}")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon_gaussian((middle,) * steps, delta) > epsilon else (low, middle)
    return high


@cache
def epsilon_exact(sigma: float, delta: float) -> float:
    """Epsilon of one Gaussian release, exact (Balle and Wang 2018), by bisection.

    >>> [round(epsilon_exact(s, 1e-5), 3) for s in (1, 2, 5, 10)]
    [4.377, 1.993, 0.726, 0.341]
    """
    low, high = 0.0, 1.0
    while delta_exact(sigma, high) > delta:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_exact(sigma, middle) > delta else (low, middle)
    return high


def in_words(told: Mapping[str, float], spans: tuple[str, str], unit: str, neighbours: str, accountant: str) -> str:
    """A guarantee as it stands beside a result: (epsilon, delta), what it is for, and how it was computed.

    told: epsilon_total, epsilon_round, delta, private (1 or 0). spans: what the two epsilons cover.

    >>> told = {"epsilon_total": 31234.5, "epsilon_round": 3.21, "delta": 1e-5, "private": 0.0}
    >>> in_words(told, ("150 rounds", "the first"), "client", "replace the update", "RDP")
    'epsilon 3.12e+04 in 150 rounds, 3.21 in the first, delta 1e-05; client level, neighbours: replace the update; \
accountant: RDP; NOT PRIVATE'
    """
    verdict = "" if told["private"] else "; NOT PRIVATE"
    return (f"epsilon {told['epsilon_total']:.3g} in {spans[0]}, {told['epsilon_round']:.3g} in {spans[1]}, "
            f"delta {told['delta']:g}; {unit} level, neighbours: {neighbours}; accountant: {accountant}{verdict}")


def delta_exact(sigma: float, epsilon: float) -> float:
    """delta(epsilon) = Phi(1/(2 sigma) - epsilon sigma) - e^epsilon Phi(-1/(2 sigma) - epsilon sigma)."""
    from scipy.special import log_ndtr

    a, b = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
    return math.exp(log_ndtr(a)) - math.exp(min(700.0, epsilon + log_ndtr(b)))
