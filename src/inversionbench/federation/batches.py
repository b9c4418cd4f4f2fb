"""What clients send in the tracks of rows and of sentences, and how their batches are sized.

It is the protocol of the federated track without batch norms, with one thing more: `batch_size` may be a list. A cell
then attacks `subjects` clients of every size, so that one process shows how the leak falls with the batch.
Clients stand size by size: those of the first size, then those of the second. Importable without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.protocol import Protocol, read_protocol

SETTINGS = ("batch_size", "labels", "sends", "epochs", "local_batch", "local_rate")


@dataclass(frozen=True)
class Batches:
    """The protocol of each batch size, in the order of the clients; `subjects` clients have each size."""

    protocols: tuple[Protocol, ...]
    subjects: int

    @property
    def sizes(self) -> list[int]:
        """Batch size of every client, (clients,)."""
        return [p.batch_size for p in self.protocols for _ in range(self.subjects)]

    @property
    def largest(self) -> int:
        return max(p.batch_size for p in self.protocols)

    @property
    def labels(self) -> str:
        return self.protocols[0].labels

    def parts(self) -> list[tuple[Protocol, range]]:
        """(protocol, its clients) of every size."""
        n = self.subjects
        return [(p, range(i * n, (i + 1) * n)) for i, p in enumerate(self.protocols)]


def read_batches(
    given: Mapping[str, Any], subjects: int, where: str, own: tuple[str, ...] = (), left: tuple[str, ...] = ()
) -> Batches:
    """The protocols of a scenario. own: further settings of the track, not read here. left: those it lacks."""
    allowed = [s for s in SETTINGS if s not in left]
    for name in given:
        if name not in allowed and name not in own:
            raise UserError(f"{where}: unknown setting '{name}': {suggest(name, [*allowed, *own])}")
    shared = {k: v for k, v in given.items() if k not in (*own, "batch_size")}
    sizes = given.get("batch_size", 1)
    sizes = sizes if isinstance(sizes, (list, tuple)) else [sizes]
    if not sizes or len(set(map(str, sizes))) < len(sizes):
        raise UserError(f"{where}.batch_size: expected a number, or different numbers, got {list(sizes)}")
    return Batches(tuple(read_protocol({**shared, "batch_size": s}, where) for s in sizes), subjects)
