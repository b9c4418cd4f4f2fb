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
from inversionbench.federation.senders import as_gradient
from inversionbench.gradients.labels import DUMMIES, Head, recover_labels
from inversionbench.models.rows import RowNet, Schema
from inversionbench.oracle.base import Oracle
from inversionbench.tracks.tabular.attacks import _pool
from inversionbench.tracks.tabular.attacks._mlp_matching import Matching, chain, layers_of, observed_of
from inversionbench.tracks.tabular.attacks._relax import Relaxation

if TYPE_CHECKING:
    from inversionbench.tracks.tabular.attacks.tableak import TabLeak

ROWS_AT_ONCE = 1024  # rows of all trials in one tensor: what fits the cache


@dataclass(frozen=True)
class Part:
    """Clients of one batch size. clients: their places. observed: per layer (clients, in + 1, out)."""

    clients: list[int]
    protocol: Protocol
    observed: list[Tensor]


def search(attack: TabLeak, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator, view: str) -> Reconstruction:
    """The whole attack on the updates of `view`, with the labels of the attacked clients."""
    model, given = oracle.global_model(), oracle.protocol()
    if not isinstance(model, RowNet):
        raise AccessDenied(f"tableak writes out the gradients of fully connected networks, not {type(model).__name__}")
    update = as_gradient(oracle.observe_update("client"), given["protocols"])
    labels, source = _labels(attack, knowledge, model, update, given["sizes"], rng)
    if view != "client":
        update = as_gradient(oracle.observe_update(view), given["protocols"])
    schema, largest = knowledge.schema, max(given["sizes"])
    shape = (len(given["sizes"]), largest, len(schema.names))
    data, scores = torch.full(shape, torch.nan, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    names = ("best_restart", "one_restart", "shuffled_rows") if attack.restarts > 1 else ()
    variants = {name: data.clone() for name in names}
    loss = torch.zeros(len(data), dtype=torch.float64)
    evaluations = 0
    for part in _parts(given, observed_of(model, update), attack.restarts):
        batch = part.protocol.batch_size
        y = F.one_hot(labels[part.clients, :batch], oracle.num_classes or 2).float()[:, None]
        found = _minimise(attack, part, layers_of(model), schema, y, rng)
        evaluations += len(part.clients) * attack.restarts * (attack.iterations + 1) * len(part.protocol.steps)
        for i, fed, score in zip(part.clients, found["fed"], found["loss"]):
            answer = combine(fed, score, schema, attack, rng)
            data[i, :batch], scores[i, :batch] = answer["rows"], answer["doubt"]
            loss[i] = score.min()
            for name, held in variants.items():
                held[i, :batch] = answer[name]
    notes: dict[str, Any] = {"labels": source, "match": [round(float(v), 6) for v in loss], "variants": variants}
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
    attack: TabLeak, part: Part, layers: list[Any], schema: Schema, y: Tensor, rng: torch.Generator
) -> dict[str, Tensor]:
    """fed: (clients, restarts, B, width), the relaxed rows of every restart; loss: that of their hard rows."""
    matching = Matching(layers, part.observed, part.protocol, attack.match == "mask")
    relax = Relaxation(schema, attack.relax)
    shape = (len(part.clients), attack.restarts, part.protocol.batch_size, schema.width)
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


def _parts(given: dict[str, Any], observed: list[Tensor], restarts: int) -> Iterator[Part]:
    """Clients of equal protocol together, in pieces of at most `ROWS_AT_ONCE` rows."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, plain in enumerate(given["protocols"]):
        groups.setdefault(tuple(sorted(plain.items())), []).append(i)
    for plain, clients in groups.items():
        protocol = Protocol(**dict(plain))
        step = max(1, ROWS_AT_ONCE // (restarts * protocol.batch_size))
        for start in range(0, len(clients), step):
            some = clients[start : start + step]
            yield Part(some, protocol, [g[some] for g in observed])


def _labels(
    attack: TabLeak, knowledge: Knowledge, model: RowNet, update: dict[str, Tensor], sizes: list[int],
    rng: torch.Generator,
) -> tuple[Tensor, str]:
    """Labels (clients, largest batch), -1 beyond a batch, and where they come from."""
    if "labels" in knowledge:
        return knowledge.labels, "given"
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
    return out, attack.label_rule
