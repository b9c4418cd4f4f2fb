"""What a gradient attack knows of one round, gathered from oracle and knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.attacks.base import Knowledge
from inversionbench.attacks.federated._labels import DUMMIES, Head, recover_labels
from inversionbench.models.federated import Victim
from inversionbench.oracle.base import Oracle
from inversionbench.training._protocol import Protocol


@dataclass(frozen=True)
class Problem:
    """One round as the server sees it.

    model: the global model, batch norms as in the client. update: name -> (clients, *shape), the observed
    gradient; for weight differences the mean gradient along the path, -difference / (rate * steps).
    statistics: per batch norm (mean, biased variance), each (clients, channels), where they are shared.
    """

    model: Victim
    protocol: Protocol
    update: Mapping[str, Tensor]
    statistics: list[tuple[Tensor, Tensor]] | None = None

    @property
    def clients(self) -> int:
        return len(next(iter(self.update.values())))

    @property
    def shape(self) -> tuple[int, ...]:
        """(clients, batch, c, h, w)."""
        return (self.clients, self.protocol.batch_size, *self.model.shape)

    def of(self, clients: slice) -> Problem:
        """The round of some of the clients."""
        shared = self.statistics and [(mean[clients], var[clients]) for mean, var in self.statistics]
        return replace(self, update={n: t[clients] for n, t in self.update.items()}, statistics=shared)

    def one_hot(self, labels: Tensor) -> Tensor:
        """(clients, batch) -> float (clients, batch, classes)."""
        return F.one_hot(labels, self.model.classes).float()


def read(oracle: Oracle, which: str = "client", back: int = 0) -> Problem:
    """Ask the oracle for the round. which: "client", or "decoy" for controls. back: rounds before the last."""
    given, protocol = oracle.protocol(), protocol_of(oracle)
    model = oracle.global_model(back)
    for norm in model.batch_norms():
        norm.record = False
    return Problem(model, protocol, gradients_of(oracle, protocol, which, back), given.get("statistics"))


def gradients_of(oracle: Oracle, protocol: Protocol, which: str = "client", back: int = 0) -> dict[str, Tensor]:
    """What the clients sent, name -> (clients, ...), as gradients; arguments of `read`."""
    return {name: t * protocol.scale for name, t in oracle.observe_update(which, back=back).items()}


def protocol_of(oracle: Oracle) -> Protocol:
    """The agreed constants."""
    given = oracle.protocol()
    return Protocol(**{f.name: given[f.name] for f in fields(Protocol)})


def labels_of(problem: Problem, knowledge: Knowledge, rule: str, rng: torch.Generator) -> tuple[Tensor, str]:
    """Labels (clients, batch) and where they come from: "given", or the rule that recovered them."""
    if "labels" in knowledge:
        return knowledge.labels, "given"
    return recovered(problem, rule, rng), rule


def recovered(problem: Problem, rule: str, rng: torch.Generator) -> Tensor:
    """Labels (clients, batch) by one rule, sorted in each row."""
    batch = problem.protocol.batch_size
    return torch.stack([recover_labels(head, batch, rule) for head in heads(problem, rule == "geng", rng)])


def heads(problem: Problem, dummies: bool, rng: torch.Generator) -> list[Head]:
    """What the label rules see of each client; with `dummies` the random inputs of `geng`, too."""
    model = problem.model
    weight, bias = model.head_names
    dw, db = problem.update[weight], problem.update.get(bias)
    softmax, total = None, 0.0
    if dummies:
        with torch.no_grad():
            h = model.features(torch.randn(DUMMIES, *model.shape, generator=rng))
            softmax, total = model.head(h).softmax(dim=1).mean(0), float(h.sum(1).mean())
    own = model.head.bias
    return [
        Head(dw[i], None if db is None else db[i], model.head.weight.detach(),
             None if own is None else own.detach(), softmax, total)
        for i in range(len(dw))
    ]  # fmt: skip
