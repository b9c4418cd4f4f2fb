"""Values per client to values per subject, where a cell attacks clients of several batch sizes.

A subject is one client of each size. Every metric is given as the mean over the sizes, and, where there are
several, once for each: `exact_match[B=8]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def by_size(values: Mapping[str, np.ndarray], sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """values: name -> (clients,), size by size -> name -> (subjects,).

    >>> {k: v.tolist() for k, v in by_size({"hit": np.array([1.0, 0.5, 0.0, 0.0])}, [1, 1, 8, 8]).items()}
    {'hit': [0.5, 0.25], 'hit[B=1]': [1.0, 0.5], 'hit[B=8]': [0.0, 0.0]}
    """
    different = list(dict.fromkeys(sizes))
    out: dict[str, np.ndarray] = {}
    for name, each in values.items():
        table = np.asarray(each, dtype=np.float64).reshape(len(different), -1)
        out[name] = table.mean(0)
        if len(different) > 1:
            out |= {f"{name}[B={size}]": row for size, row in zip(different, table)}
    return out
