"""Which updates that an observer sees are sums of several clients (secure aggregation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def summed(update: Mapping[str, Tensor], groups: Sequence[Sequence[int]] | None) -> list[list[int]]:
    """Members of every sum, attacked clients first, others as numbers beyond them. groups: as the protocol makes them
    public. update: name -> (clients, ...). Rows that differ are no sum.

    >>> seen = {"weight": torch.tensor([[1.0], [1.0], [2.0]])}
    >>> summed(seen, [[0, 1], [2, 3]]), summed(seen, [[0, 2]]), summed(seen, None)
    ([[0, 1], [2, 3]], [[0], [2], [1]], [[0], [1], [2]])
    """
    clients = len(next(iter(update.values())))
    out: list[list[int]] = []
    for members in groups or ():
        held = [i for i in members if i < clients]
        equal = all(torch.equal(t[i], t[held[0]]) for t in update.values() for i in held)
        out += [list(members)] if held and equal else [[i] for i in held]
    found = {i for members in out for i in members}
    return out + [[i] for i in range(clients) if i not in found]
