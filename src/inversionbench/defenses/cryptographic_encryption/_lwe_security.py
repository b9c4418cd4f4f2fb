"""How hard an LWE instance is: the cost of the primal lattice attack, by the model of the homomorphic encryption
standard (Albrecht et al., 2018).

n secret entries of standard deviation `secret`, errors of `error`, modulus q. With m samples the attack looks for a
short vector in a lattice of dimension d = m + n + 1, the secret scaled by error / secret, and succeeds with the
smallest block size b for which

    error sqrt(b) <= delta^(2b - d - 1) (q^m (error / secret)^n)^(1 / d),
    delta = ((pi b)^(1/b) b / (2 pi e))^(1 / (2b - 2)).

Cost in bits: 0.292 b + 16.4 + log2(8 d), or the core term 0.292 b alone. An estimate of one attack, no proof.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SECURE = 128.0  # bits below which a set of parameters is called insecure


@cache
def primal(n: int, log_q: float, error: float, secret: float | None = None) -> tuple[float, float]:
    """(bits, core bits) for a secret of the errors' size unless `secret` says otherwise.

    >>> [round(primal(n, q, 3.2, (2 / 3) ** 0.5)[0]) for n, q in ((1024, 27), (2048, 54))]
    [132, 130]
    """
    low, high = 40, 4 * n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _dimension(n, log_q, error, secret or error, middle) else (middle + 1, high)
    d = _dimension(n, log_q, error, secret or error, low) or 2 * n
    core = 0.292 * low
    return core + 16.4 + float(np.log2(8 * d)), core


def _dimension(n: int, log_q: float, error: float, secret: float, block: int) -> int:
    """The smallest lattice dimension in which this block size succeeds, 0 if there is none."""
    m = np.arange(1, 6 * n)
    d = m + n + 1
    delta = np.log2((np.pi * block) ** (1 / block) * block / (2 * np.pi * np.e)) / (2 * block - 2)
    volume = (m * log_q + n * np.log2(error / secret)) / d
    fits = np.log2(error) + 0.5 * np.log2(block) <= delta * (2 * block - d - 1) + volume
    fits &= d >= block
    return int(d[np.argmax(fits)]) if fits.any() else 0


def label(bits: float, core: float) -> str:
    """What stands beside a result."""
    verdict = "" if round(bits) >= SECURE else "INSECURE: "
    return f"{verdict}{bits:.0f} bits (primal attack), {core:.0f} bits core"
