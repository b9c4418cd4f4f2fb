"""Values per client to values per subject, where a cell attacks clients of several batch sizes.

A subject is one client of each size. Every metric is the mean over the sizes; the first one is given for every size,
too (`exact_match[B=08]`, with zeros in front so that names sort as numbers do), and `table` has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def by_size(values: Mapping[str, np.ndarray], sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """values: name -> (clients,), size by size -> name -> (subjects,).

    >>> found = by_size({"hit": np.array([1.0, 0.5, 0.0, 0.0]), "near": np.ones(4)}, [8, 8, 16, 16])
    >>> {name: value.tolist() for name, value in found.items()}
    {'hit': [0.5, 0.25], 'near': [1.0, 1.0], 'hit[B=08]': [1.0, 0.5], 'hit[B=16]': [0.0, 0.0]}
    """
    different = list(dict.fromkeys(sizes))
    tables = {name: np.asarray(each, dtype=np.float64).reshape(len(different), -1) for name, each in values.items()}
    out = {name: each.mean(0) for name, each in tables.items()}
    if len(different) > 1:
        first, digits = next(iter(tables)), len(str(max(different)))
        out |= {f"{first}[B={size:0{digits}d}]": row for size, row in zip(different, tables[first])}
    return out


def table(values: Mapping[str, np.ndarray], sizes: Sequence[int]) -> dict[str, dict[str, float]]:
    """Mean of every metric at every batch size.

    >>> table({"hit": np.array([1.0, 0.5, 0.0, 0.0])}, [1, 1, 8, 8])
    {'hit': {'1': 0.75, '8': 0.0}}
    """
    different = list(dict.fromkeys(sizes))
    return {
        name: {str(s): float(row.mean()) for s, row in zip(different, np.reshape(each, (len(different), -1)))}
        for name, each in values.items()
    }
