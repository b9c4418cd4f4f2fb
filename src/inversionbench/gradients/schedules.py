"""Learning rates over a search: factor at step t of T."""

from __future__ import annotations

import math

from inversionbench.core.errors import UserError, suggest

SCHEDULES = ("drops", "cosine", "ramp", "constant")
DROPS = (3 / 8, 5 / 8, 7 / 8)


def factor(kind: str, t: int, steps: int, warm_up: int = 0) -> float:
    """drops: x 0.1 at 3/8, 5/8 and 7/8 of the steps (Geiping et al.). cosine: from 1 to 0. ramp: from 0 to 1 over
    the first 5 %, down to 0 along a cosine over the last 75 % (searches in a generator). A linear rise over
    the first `warm_up` steps multiplies any of them.

    >>> [round(factor("drops", t, 8), 4) for t in (0, 3, 5, 7)]
    [1.0, 0.1, 0.01, 0.001]
    """
    rise = min(1.0, (t + 1) / warm_up) if warm_up else 1.0
    if kind == "drops":
        return rise * 0.1 ** sum(t >= int(d * steps) for d in DROPS)
    if kind == "cosine":
        return rise * 0.5 * (1 + math.cos(math.pi * t / steps))
    if kind == "ramp":
        up = min(1.0, (t + 1) / max(1.0, 0.05 * steps))
        return rise * up * 0.5 * (1 - math.cos(math.pi * min(1.0, (1 - t / steps) / 0.75)))
    if kind == "constant":
        return rise
    raise UserError(f"schedule: unknown '{kind}': {suggest(kind, SCHEDULES)}")
