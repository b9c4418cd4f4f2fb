"""What a gradient attack knows of one round, gathered from oracle and knowledge.

All of it lies on the device of `core.device`, and attacks compute where it lies. Two things stay on the CPU:
random numbers are drawn there and moved, and the label rules, which are small, run there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.attack import Knowledge
from inversionbench.core.device import device
from inversionbench.core.protocol import Protocol
from inversionbench.gradients.labels import DUMMIES, Head, recover_labels
from inversionbench.models.federated import Victim
from inversionbench.oracle.base import Oracle


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
    def where(self) -> torch.device:
        """The device of the round."""
        return next(iter(self.update.values())).device

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
        return F.one_hot(labels.to(self.where), self.model.classes).float()


def read(oracle: Oracle, which: str = "client", back: int = 0, where: torch.device | None = None) -> Problem:
    """Ask the oracle for the round. which: "client", or "decoy" for controls. back: rounds before the last. where: a
    device other than that of `core.device`."""
    where = where or device()
    given, protocol = oracle.protocol(), protocol_of(oracle)
    model = oracle.global_model(back).to(where)
    for norm in model.batch_norms():
        norm.record = False
    shared = given.get("statistics")
    shared = shared and [(mean.to(where), var.to(where)) for mean, var in shared]
    return Problem(model, protocol, gradients_of(oracle, protocol, which, back, where), shared)


def gradients_of(
    oracle: Oracle, protocol: Protocol, which: str = "client", back: int = 0, where: torch.device | None = None
) -> dict[str, Tensor]:
    """What the clients sent, name -> (clients, ...), as gradients; arguments of `read`."""
    seen = oracle.observe_update(which, back=back)
    return {name: t.to(where or device()) * protocol.scale for name, t in seen.items()}


def protocol_of(oracle: Oracle) -> Protocol:
    """The agreed constants."""
    given = oracle.protocol()
    return Protocol(**{f.name: given[f.name] for f in fields(Protocol)})


def labels_of(problem: Problem, knowledge: Knowledge, rule: str, rng: torch.Generator) -> tuple[Tensor, str]:
    """Labels (clients, batch) and where they come from: "given", or the rule that recovered them."""
    if "labels" in knowledge:
        return knowledge.labels.to(problem.where), "given"
    return recovered(problem, rule, rng), rule


def recovered(problem: Problem, rule: str, rng: torch.Generator) -> Tensor:
    """Labels (clients, batch) by one rule, sorted in each row."""
    batch = problem.protocol.batch_size
    rows = [recover_labels(head, batch, rule) for head in heads(problem, rule == "geng", rng)]
    return torch.stack(rows).to(problem.where)


def heads(problem: Problem, dummies: bool, rng: torch.Generator) -> list[Head]:
    """What the label rules see of each client, on the CPU; with `dummies` the random inputs of `geng`, too."""
    model = problem.model
    weight, bias = model.head_names
    dw = problem.update[weight].cpu()
    db = problem.update[bias].cpu() if bias in problem.update else None
    softmax, total = None, 0.0
    if dummies:
        with torch.no_grad():
            h = model.features(torch.randn(DUMMIES, *model.shape, generator=rng).to(problem.where))
            softmax, total = model.head(h).softmax(dim=1).mean(0).cpu(), float(h.sum(1).mean())
    own = model.head.bias
    return [
        Head(dw[i], None if db is None else db[i], model.head.weight.detach().cpu(),
             None if own is None else own.detach().cpu(), softmax, total)
        for i in range(len(dw))
    ]  # fmt: skip
