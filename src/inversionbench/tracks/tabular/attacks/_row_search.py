"""The search of TabLeak: all clients of one batch size and all their restarts in one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.attack import Knowledge, Reconstruction
from inversionbench.core.errors import AccessDenied
from inversionbench.core.protocol import Protocol
from inversionbench.gradients.fully_connected import Matching, as_gradient, chain, layers_of, observed_of
from inversionbench.gradients.labels import DUMMIES, Head, recover_labels
from inversionbench.gradients.sums import summed
from inversionbench.models.rows import RowNet, Schema
from inversionbench.oracle.base import Oracle
from inversionbench.tracks.tabular.attacks import _pool
from inversionbench.tracks.tabular.attacks._known import Known
from inversionbench.tracks.tabular.attacks._relax import Relaxation

if TYPE_CHECKING:
    from inversionbench.tracks.tabular.attacks.tableak import TabLeak

ROWS_AT_ONCE = 1024  # rows of all trials in one tensor: what fits the cache


@dataclass(frozen=True)
class Part:
    """Updates of as many rows each. members: the clients of every update, one but for sums. protocol: that of one
    client who holds all its rows. observed: per layer (updates, in + 1, out)."""

    members: list[list[int]]
    protocol: Protocol
    observed: list[Tensor]


def search(attack: TabLeak, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator, view: str) -> Reconstruction:
    """The whole attack on the updates of `view`, with the labels of the attacked clients."""
    model, given = oracle.global_model(), oracle.protocol()
    if not isinstance(model, RowNet):
        raise AccessDenied(f"tableak writes out the gradients of fully connected networks, not {type(model).__name__}")
    known = Known(attack.match, knowledge.defense if attack.match != "plain" else {})
    update = as_gradient(oracle.observe_update("client"), given["protocols"])
    labels, source = _labels(attack, knowledge, model, update, given["sizes"], rng)
    if view != "client":
        update = as_gradient(oracle.observe_update(view), given["protocols"])
    groups = summed(update, known.sums)
    schema, largest = knowledge.schema, max(given["sizes"])
    shape = (len(given["sizes"]), largest, len(schema.names))
    data, scores = torch.full(shape, torch.nan, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    names = ("best_restart", "one_restart", "shuffled_rows") if attack.restarts > 1 else ()
    variants = {name: data.clone() for name in names}
    loss = torch.zeros(len(data), dtype=torch.float64)
    evaluations = 0
    for part in _parts(given, groups, observed_of(model, update), attack.restarts):
        told = torch.stack([_told(attack, m, part.protocol, model, update, labels, source, rng) for m in part.members])
        y = F.one_hot(told, oracle.num_classes or 2).float()[:, None]
        found = _minimise(attack, part, known, layers_of(model), schema, y, rng)
        evaluations += len(part.members) * attack.restarts * (attack.iterations + 1) * len(part.protocol.steps)
        for members, mine, fed, score in zip(part.members, told, found["fed"], found["loss"]):
            answer = combine(fed, score, schema, attack, rng)
            for i, rows in _filed(members, part.protocol, len(data)):
                batch = rows.stop - rows.start
                data[i, :batch], scores[i, :batch] = answer["rows"][rows], answer["doubt"][rows]
                loss[i] = score.min()
                labels[i, :batch] = mine[rows]
                for name, held in variants.items():
                    held[i, :batch] = answer[name][rows]
    notes: dict[str, Any] = {"labels": source, "match": [round(float(v), 6) for v in loss], "variants": variants}
    if known.sums:
        notes["clients_in_sum"] = max(map(len, groups))
    return Reconstruction(data, labels, scores, cost={"gradient_evaluations": evaluations}, notes=notes)


def combine(fed: Tensor, loss: Tensor, schema: Schema, attack: TabLeak, rng: torch.Generator) -> dict[str, Tensor]:
    """One client's restarts to one answer. fed: (restarts, B, width); loss: (restarts,) of their hard rows."""
    shares = Relaxation(schema, attack.relax).shares(fed)
    rows = schema.decode(shares)
    best = int(loss.argmin())
    order = _pool.align(rows, rows[best], schema)
    matched = torch.stack([member[place] for member, place in zip(shares, order)])
    mixed = torch.stack([m[torch.randperm(len(m), generator=rng)] for m in shares])
    out = {"best_restart": rows[best], "one_restart": rows[0]}
    pooled = shares[best].double() if attack.pooling == "best" else _pool.pool(matched, attack.pooling)
    rule = "median" if attack.pooling == "best" else attack.pooling
    out |= {"rows": schema.decode(pooled), "shuffled_rows": schema.decode(_pool.pool(mixed, rule))}
    return out | {"doubt": _pool.doubt(_pool.pool(matched, rule), matched, schema)}


def _minimise(
    attack: TabLeak, part: Part, known: Known, layers: list[Any], schema: Schema, y: Tensor, rng: torch.Generator
) -> dict[str, Tensor]:
    """fed: (updates, restarts, B, width), the relaxed rows of every restart; loss: that of their hard rows."""
    matching = Matching(layers, part.observed, part.protocol, *known.of(part.observed))
    relax = Relaxation(schema, attack.relax)
    shape = (len(part.members), attack.restarts, part.protocol.batch_size, schema.width)
    u = torch.rand(shape, generator=rng) * 2 - 1
    mean, square = torch.zeros_like(u), torch.zeros_like(u)
    for step in range(1, attack.iterations + 1):
        free = u.requires_grad_(True)
        fed = relax(free)
        sign = torch.autograd.grad(fed, free, matching.slope(fed.detach(), y))[0].nan_to_num_().sign_()
        mean.mul_(0.9).add_(sign, alpha=0.1)
        square.mul_(0.999).add_(sign.square_(), alpha=0.001)
        scale = attack.rate / (1 - 0.9**step)
        u = u.detach().sub_(mean / (square / (1 - 0.999**step)).sqrt_().add_(1e-8), alpha=scale)
    with torch.no_grad():
        fed = relax(u)
        hard = schema.feed(schema.encode(schema.decode(relax.shares(fed))))
        loss = matching(hard, y).nan_to_num(nan=2.0)
    return {"fed": fed, "loss": loss}


def _parts(given: dict[str, Any], groups: list[list[int]], observed: list[Tensor], restarts: int) -> Iterator[Part]:
    """Updates of equal protocol together, in pieces of at most `ROWS_AT_ONCE` rows."""
    alike: dict[tuple[Any, ...], list[list[int]]] = {}
    for members in groups:
        plain = given["protocols"][members[0]]
        if len(members) > 1 and plain["sends"] != "gradient":
            raise AccessDenied("a sum of weight differences is no gradient of one batch: use sends: gradient")
        joint = {**plain, "batch_size": plain["batch_size"] * len(members)}
        alike.setdefault(tuple(sorted(joint.items())), []).append(members)
    for settings, same in alike.items():
        protocol = Protocol(**dict(settings))
        step = max(1, ROWS_AT_ONCE // (restarts * protocol.batch_size))
        for start in range(0, len(same), step):
            some = same[start : start + step]
            yield Part(some, protocol, [g[[m[0] for m in some]] for g in observed])


def _filed(members: list[int], protocol: Protocol, attacked: int) -> Iterator[tuple[int, slice]]:
    """Attacked members of an update, and which of its rows were searched with their labels."""
    batch = protocol.batch_size // len(members)
    for place, i in enumerate(members):
        if i < attacked:
            yield i, slice(place * batch, (place + 1) * batch)


def _told(
    attack: TabLeak, members: list[int], protocol: Protocol, model: RowNet, update: dict[str, Tensor], labels: Tensor,
    source: str, rng: torch.Generator,
) -> Tensor:
    """(rows of the update,): the labels of its members in order; what nobody told is recovered from the sum."""
    batch = protocol.batch_size // len(members)
    own = labels[[i for i in members if i < len(labels)], :batch].flatten()
    if len(members) == 1 or (source == "given" and len(own) == protocol.batch_size):
        return own
    seen = {name: t[members[:1]] for name, t in update.items()}
    rest = recovered(attack, model, seen, [protocol.batch_size], rng)[0].tolist()
    if source != "given":
        return torch.tensor(rest)
    for label in own.tolist():
        if label in rest:
            rest.remove(label)
    return torch.tensor([*own.tolist(), *rest][: protocol.batch_size])


def _labels(
    attack: TabLeak, knowledge: Knowledge, model: RowNet, update: dict[str, Tensor], sizes: list[int],
    rng: torch.Generator,
) -> tuple[Tensor, str]:
    """Labels (clients, largest batch), -1 beyond a batch, and where they come from."""
    if "labels" in knowledge:
        return knowledge.labels.clone(), "given"
    return recovered(attack, model, update, sizes, rng), attack.label_rule


def recovered(
    attack: TabLeak, model: RowNet, update: dict[str, Tensor], sizes: list[int], rng: torch.Generator
) -> Tensor:
    """Labels (updates, largest size) from the head's gradient, -1 beyond a size."""
    name, head = model.stack()[-1]
    with torch.no_grad():
        inputs = torch.randn(DUMMIES, 1, len(model.mean), generator=rng)
        features = chain(layers_of(model), inputs, torch.zeros(1))[-1][0].squeeze(1)
        softmax = F.linear(features, head.weight, head.bias).softmax(1).mean(0)
    out = torch.full((len(sizes), max(sizes)), -1)
    for i, size in enumerate(sizes):
        dw, db = update[f"{name}.weight"][i].float(), update[f"{name}.bias"][i].float()
        seen = Head(dw, db, head.weight, head.bias, softmax, float(features.sum(1).mean()))
        out[i, :size] = recover_labels(seen, size, attack.label_rule)
    return out
