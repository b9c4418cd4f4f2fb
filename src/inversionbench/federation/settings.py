"""Settings of a federation: how the global model is trained, and the batches of the attacked clients. Importable
without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.protocol import Protocol, read_protocol
from inversionbench.core.ranges import Count, NonNegative, Share, ShareBelowOne, Whole
from inversionbench.core.settings import parse

if TYPE_CHECKING:
    from inversionbench.core.scenario import Scenario

OF_ROWS = ("batch_size", "labels", "sends", "epochs", "local_batch", "local_rate", "observer")  # settings of `Protocol`
OF_SENTENCES = tuple(name for name in OF_ROWS if name != "labels")


@dataclass(frozen=True)
class Federation:
    """How the global model is trained, before the attacked round and for the price of a defense.

    rounds: trained before the attacked round (0: untrained). utility_rounds: rounds over which accuracy is
    measured (0: not measured), enough for the undefended federation to converge: what is stopped before shows how
    much a defense slows training, not what it costs. `utility_seeds` federations are trained for it, for all
    targets of a scenario together. Each round every one of `clients` sends the gradient of `batch` of its samples,
    drawn without replacement; the private set is split evenly, or by a Dirichlet distribution over classes with
    parameter `skew` where that is not 0. The server takes the mean with momentum at `rate`, which rises over
    `warm_up` rounds and drops to a fifth after 60 %.
    target_accuracy: the level to which rounds are counted; 0: 95 % of what the undefended federation of the same seed
    reaches in the end.
    """

    rounds: Whole = 0
    utility_rounds: Whole = 0
    utility_seeds: Count = 1
    clients: Count = 8
    batch: Count = 16
    rate: NonNegative = 0.015
    momentum: ShareBelowOne = 0.9
    warm_up: Whole = 10
    skew: NonNegative = 0.0
    target_accuracy: Share = 0.0


@dataclass(frozen=True)
class Batches:
    """The attacked clients, size by size: `subjects` of them have each batch size, which has a protocol of its own. A
    cell with several sizes shows in one process how the leak falls with the batch."""

    protocols: tuple[Protocol, ...]
    subjects: int

    @property
    def sizes(self) -> list[int]:
        """Batch size of every client, (clients,)."""
        return [p.batch_size for p in self.protocols for _ in range(self.subjects)]

    @property
    def largest(self) -> int:
        return max(p.batch_size for p in self.protocols)

    def parts(self) -> list[tuple[Protocol, range]]:
        """(protocol, its clients) of every size."""
        n = self.subjects
        return [(p, range(i * n, (i + 1) * n)) for i, p in enumerate(self.protocols)]


def read_federation(given: Mapping[str, Any], where: str, **defaults: Any) -> Federation:
    """The federation of a scenario; `UserError` for what it cannot be. defaults: of a kind of input."""
    return parse(Federation, {**defaults, **given}, where)


def read_batches(
    given: Mapping[str, Any], subjects: int, where: str, allowed: Sequence[str] = (), own: Sequence[str] = ()
) -> Batches:
    """The protocols of a scenario, whose `batch_size` may be a list. allowed: the settings of `Protocol` that it may
    choose (none: all). own: settings of the track, which are not read here."""
    for name in given:
        if allowed and name not in (*allowed, *own):
            raise UserError(f"{where}: unknown setting '{name}': {suggest(name, [*allowed, *own])}")
    shared = {k: v for k, v in given.items() if k not in (*own, "batch_size")}
    sizes = given.get("batch_size", 1)
    sizes = sizes if isinstance(sizes, (list, tuple)) else [sizes]
    if not sizes or len(set(map(str, sizes))) < len(sizes):
        raise UserError(f"{where}.batch_size: expected a number, or different numbers, got {list(sizes)}")
    return Batches(tuple(read_protocol({**shared, "batch_size": s}, where) for s in sizes), subjects)


def batches_of_rows(scenario: Scenario) -> Batches:
    return read_batches(scenario.protocol, scenario.subjects, "protocol", OF_ROWS, ("ask",))


def federation_of_rows(scenario: Scenario) -> Federation:
    return read_federation(scenario.training, "training", batch=32, rate=0.1)


def batches_of_sentences(scenario: Scenario) -> Batches:
    """No attacker is told the labels: they are the sentences' own words, or what nobody needs."""
    batches = read_batches(scenario.protocol, scenario.subjects, "protocol", OF_SENTENCES, ("precision", "trained"))
    return replace(batches, protocols=tuple(replace(p, labels="hidden") for p in batches.protocols))
