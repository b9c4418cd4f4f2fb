"""The federation around an attacked round. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from inversionbench.core.ranges import Count, NonNegative, Share, ShareBelowOne, Whole
from inversionbench.core.settings import parse


@dataclass(frozen=True)
class Federation:
    """How the global model is trained, before the attacked round and for the price of a defense.

    rounds: trained before the attacked round (0: untrained). utility_rounds: rounds over which accuracy is
    measured (0: not measured), enough for the undefended federation to converge: what is stopped before shows how
    much a defense slows training, not what it costs. `utility_seeds` federations are trained for it, for all
    targets of a scenario together. Each round every one of `clients` sends the gradient of `batch` of its images,
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

    @property
    def plain(self) -> dict[str, Any]:
        return asdict(self)


def read_federation(given: Mapping[str, Any], where: str) -> Federation:
    """The federation of a scenario; `UserError` for what it does not know or cannot be."""
    return parse(Federation, given, where)
