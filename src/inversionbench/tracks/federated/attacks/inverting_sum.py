"""Inverting Gradients on a sum: the attack that secure aggregation leaves (adaptive; its own, no paper).

A server that sees only the sum of N clients holds the gradient of one batch of all their images. It is matched as
such: N times the images, all at once, with the labels of the attacked clients and, for clients that nobody
attacks, those recovered from the sum. Rows of the observed update that are equal belong to one sum; how many clients
stand behind it is public. An image is filed under the client whose label it was searched with, so two clients with
one label may be swapped, which the comparison counts against the attack.

Needs updates that are gradients of one step: the mean of weight differences of several steps is no gradient of the
union. Where no sum is seen it is `inverting_gradients`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar

from inversionbench.core.attack import Knowledge, Reconstruction
from inversionbench.tracks.federated.attacks.inverting_gradients import InvertingGradients

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inversionbench.gradients.problem import Problem
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class InvertingSum(InvertingGradients):
    """The parameters of `inverting_gradients`."""

    id = "inverting_sum"
    adapts: ClassVar[str] = "inverting_gradients"

    def search(
        self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator, view: str
    ) -> Reconstruction:
        from inversionbench.core.errors import AccessDenied
        from inversionbench.gradients.matching import Settings, invert
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.sums import summed
        from inversionbench.tracks.federated.attacks._adaptive import Adapted

        problem = read(oracle)
        told, source = labels_of(problem, knowledge, self.label_rule, rng)
        groups = summed(problem.update, knowledge.defense.get("groups"))
        clients = max(map(len, groups))
        if clients > 1 and problem.protocol.sends != "gradient":
            raise AccessDenied("inverting_sum: a sum of weight differences is no gradient; use sends: gradient")
        adaptation = Adapted(self.match, knowledge.defense) if self.match != "plain" else None
        parts = []
        for size in sorted({len(g) for g in groups}):
            own = [g for g in groups if len(g) == size]
            joint = _joint(problem, own, size)
            labels = _labels(joint, own, told, size, source == "given", self.label_rule, rng)
            settings = Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)})
            parts.append((own, invert(joint, labels, settings, rng, adaptation)))
        return _filed(problem, parts, source, clients)


def _joint(problem: Problem, groups: list[list[int]], size: int) -> Problem:
    """One row and one large batch for every sum."""
    import torch

    first = torch.tensor([g[0] for g in groups]).to(problem.where)
    protocol = replace(problem.protocol, batch_size=size * problem.protocol.batch_size)
    return replace(problem, protocol=protocol, update={n: t[first] for n, t in problem.update.items()})


def _labels(
    joint: Problem, groups: list[list[int]], told: Tensor, size: int, given: bool, rule: str, rng: torch.Generator
) -> Tensor:
    """(groups, size * batch): the labels of each member in order; what nobody told is recovered from the sum."""
    import torch

    from inversionbench.gradients.problem import recovered

    if size == 1:
        return told[[g[0] for g in groups]]
    rows = recovered(joint, rule, rng)
    if not given:
        return rows
    out = []
    for members, row in zip(groups, rows):
        known = told[[i for i in members if i < len(told)]].flatten().tolist()
        rest = row.tolist()
        for label in known:
            if label in rest:
                rest.remove(label)
        out.append((known + rest)[: joint.protocol.batch_size])
    return torch.tensor(out).to(joint.where)


def _filed(
    problem: Problem, parts: list[tuple[list[list[int]], Reconstruction]], source: str, clients: int
) -> Reconstruction:
    """The images of the sums, back under their clients."""
    import torch

    batch = problem.protocol.batch_size
    data = torch.zeros(problem.shape, device=problem.where)
    labels = torch.zeros(problem.clients, batch, dtype=torch.int64, device=problem.where)
    for groups, found in parts:
        for row, members in enumerate(groups):
            for place, i in enumerate(i for i in members if i < problem.clients):
                slots = slice(place * batch, (place + 1) * batch)
                data[i], labels[i] = found.data[row, slots], found.labels[row, slots]
    return Reconstruction(
        data=data,
        labels=labels,
        cost={k: sum(found.cost[k] for _, found in parts) for k in parts[0][1].cost},
        notes={**parts[-1][1].notes, "labels": source, "adaptive": True, "clients_in_sum": clients},
    )
