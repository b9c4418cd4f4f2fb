"""What client and server agreed on, and what of it the attacker knows. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, NonNegative, Whole
from inversionbench.core.settings import parse


@dataclass(frozen=True)
class Protocol:
    """One federated protocol.

    sends: "gradient" (FedSGD: the gradient of one step) or "delta" (FedAvg: new minus old weights after
    `epochs` passes over the client's `batch_size` images in order, `local_batch` images per step (0: all), plain
    SGD at `local_rate`). labels: whether the attacker is given them. classes: whether the labels of a batch
    are drawn freely or all distinct. bn: what batch norms use while the client computes (`eval_public`: the
    server's running statistics; `train_private`: those of the client's batch; `train_shared`: the same, and
    the client sends them). ask: what attacks are after, the images or the labels alone.

    rounds: how many rounds in a row are seen, the attacked one last; every client takes part in all of them
    with the same images. Between them the server moves by `server_rate` times the mean gradient, downhill, or
    by `server_rate` times the mean difference of weights.

    planted: in a further round the server sends weights of its own making, the first layer with so many bins, and the
    same clients answer to these (0: it is honest). disguise: in another one it sends the same with so much
    of other patterns in them, which hide them. See `gradients.imprint`.

    observer: who attacks: the `server`, an `eavesdropper` on the links to it, another `client` (who knows the mean
    and its own update), or server and client in `collusion`. They differ where a protocol hides payloads.
    """

    sends: Literal["gradient", "delta"] = "gradient"
    batch_size: Count = 1
    labels: Literal["known", "hidden"] = "known"
    classes: Literal["any", "distinct"] = "any"
    bn: Literal["eval_public", "train_private", "train_shared"] = "eval_public"
    epochs: Count = 1
    local_batch: Whole = 0
    local_rate: NonNegative = 0.01
    rounds: Count = 1
    server_rate: NonNegative = 0.1
    observer: Literal["server", "eavesdropper", "client", "collusion"] = "server"
    ask: Literal["images", "labels"] = "images"
    planted: Whole = 0
    disguise: NonNegative = 0.0

    @property
    def steps(self) -> list[tuple[int, int]]:
        """The local steps as (first, one past the last) image of each, in the order they are taken."""
        size = self.local_batch or self.batch_size
        once = [(i, min(i + size, self.batch_size)) for i in range(0, self.batch_size, size)]
        return once * self.epochs

    @property
    def scale(self) -> float:
        """What makes a gradient of an update: 1, or for a difference of weights -1 / (local_rate * steps), which gives
        the mean gradient along the client's path.
        """
        return -1 / (self.local_rate * len(self.steps)) if self.sends == "delta" else 1.0

    @property
    def plain(self) -> dict[str, Any]:
        return asdict(self)


def read_protocol(given: Mapping[str, Any], where: str) -> Protocol:
    """The protocol of a scenario; `UserError` for what it does not know or cannot be."""
    protocol = parse(Protocol, given, where)
    if protocol.ask == "labels" and protocol.labels == "known":
        raise UserError(f"{where}.labels: attacks that ask for labels need them hidden; set labels: hidden")
    if protocol.sends == "delta" and not protocol.local_rate:
        raise UserError(f"{where}.local_rate: 0 moves no weight, so there is nothing to send; give a positive rate")
    if protocol.sends == "gradient" and len(protocol.steps) > 1:
        raise UserError(f"{where}: sends: gradient has one step; for {len(protocol.steps)} use sends: delta")
    if protocol.planted and len(protocol.steps) > 1:
        raise UserError(f"{where}.planted: read from the gradient of one step, not of {len(protocol.steps)}")
    return protocol
