"""Parts of a graph."""

from __future__ import annotations

from collections import deque

import numpy as np


def grow(graph: np.ndarray, free: np.ndarray, count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """`count` free nodes found breadth-first from a random one; a component that ends is followed by another
    random start. Follows at most `most` neighbours of a node, and takes the nodes out of `free`, bool (n,).

    graph: bool (n, n), symmetric. Returns node numbers, int64 (count,), rising.
    """
    found: list[int] = []
    queue: deque[int] = deque()
    while len(found) < count:
        node = queue.popleft() if queue else int(rng.choice(np.flatnonzero(free)))
        if not free[node]:
            continue
        free[node] = False
        found.append(node)
        around = np.flatnonzero(graph[node] & free)
        queue.extend(int(n) for n in rng.permutation(around)[:most])
    return np.sort(np.array(found, np.int64))
