"""What a federated client does in one round, with the hooks of a defense in their places.

    model <- global parameters                       H3 build_model has acted when the server built it
    for each local step, images [i, j) of the batch in order:
        x', y' = H2 train_transform(x, y)            y' may become soft
        logits, hidden = model(x')                   batch norms in the protocol's mode
        L  = H4 loss(Step)
        g  = dL/dparameters
        g' = H5 gradient(g, Step)
        FedAvg: parameters <- parameters - local_rate * g'
    update  = g' (FedSGD: one step)  or  new - old parameters (FedAvg)
    payload = H6 client_update(update)               once; what leaves the client, as the server reads it
    mean, view = H7 aggregate(payloads)              within `exchange`: what the protocol's observer sees is the
                                                     attacker's only source

FedSGD is the same code with one step. A payload maps parameter names to tensors; with `bn: train_shared`
the batch statistics travel beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import Client, Defense, Step
from inversionbench.core.exchange import Exchange, Round
from inversionbench.models.base import trace
from inversionbench.models.federated import Victim

if TYPE_CHECKING:
    from inversionbench.core.protocol import Protocol

Update = dict[str, Tensor]


@dataclass
class Sent:
    """One client's round. update: before H6. payload: after it. size: bytes of the payload on the wire.

    x, y: what the steps really used, after H2 (of the last epoch). statistics: per batch norm (mean, biased
    variance) of the last step, with `bn: train_shared`. public: what the defense says about this round
    (noise level, guarantee), which `client_update` leaves in `client.state["public"]`.
    """

    update: Update
    payload: Update
    size: int
    x: Tensor
    y: Tensor
    statistics: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    public: dict[str, Any] = field(default_factory=dict)


def local_update(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    protocol: Protocol,
    defense: Defense,
    classes: int,
    rng: torch.Generator,
    expected: float = 0.0,
) -> tuple[Update, Tensor, Tensor]:
    """Local training: (update, x', y'). x: (batch, c, h, w) in [0, 1]; y: (batch,). `model` is left as it was.
    expected: see `Step`.

    Raises `ValueError` when a soft label has the wrong width.
    """
    names = [name for name, _ in model.named_parameters()]
    moves = protocol.sends == "delta"
    start = {name: p.detach().clone() for name, p in model.named_parameters()} if moves else {}
    used_x, used_y = [], []
    steps = protocol.steps
    per_epoch = len(steps) // protocol.epochs
    gradients: Update = {}
    try:
        for step, (i, j) in enumerate(steps):
            bx, by = defense.train_transform(x[i:j], y[i:j], rng, step)
            if step >= len(steps) - per_epoch:
                used_x.append(bx.detach())
                used_y.append(by.detach())
            out = trace(model, bx)
            ctx = Step(model, bx, by, out.logits, out.hidden, step, step // per_epoch, protocol.epochs, classes, rng,
                       expected)  # fmt: skip
            loss = defense.loss(ctx)
            parts = torch.autograd.grad(loss, list(model.parameters()))
            gradients = defense.gradient(dict(zip(names, parts)), ctx)
            if moves:
                with torch.no_grad():
                    for name, p in model.named_parameters():
                        p.sub_(gradients[name], alpha=protocol.local_rate)
        if moves:
            gradients = {name: p.detach() - start[name] for name, p in model.named_parameters()}
    finally:
        with torch.no_grad():
            for name, before in start.items():
                model.get_parameter(name).data.copy_(before)
    return gradients, _join(used_x), _join(used_y)


def send(
    model: Victim,
    x: Tensor,
    y: Tensor,
    protocol: Protocol,
    defense: Defense,
    client: Client,
    classes: int,
) -> Sent:
    """One client's whole round up to H6; randomness from `client.rng`."""
    norms = model.bn_mode(protocol.bn).batch_norms()
    update, used_x, used_y = local_update(model, x, y, protocol, defense, classes, client.rng)
    statistics = []
    if protocol.bn == "train_shared":
        statistics = [(n.seen[0].detach(), n.seen[1].detach()) for n in norms if n.seen]
    client.model, client.x, client.y = model, used_x, used_y
    payload = defense.client_update(update, client)
    public = dict(client.state.get("public", {}))
    return Sent(update, payload, defense.bytes_sent(payload), used_x, used_y, statistics, public)


def observe(
    defense: Defense, sent: Sequence[Sent], weights: Sequence[float]
) -> tuple[Update, Update]:
    """H7: (mean update, what the server sees as stacked tensors (clients, ...)).

    A defense that shows the server one tensor for all clients (a sum) gives it to every client's row: the
    attacker has nothing better for any of them.
    """
    round = Round(0, torch.Generator().manual_seed(0), [s.size for s in sent], "server", True)
    done, view = exchange(defense, sent, weights, round)
    return done.mean, view


def exchange(
    defense: Defense, sent: Sequence[Sent], weights: Sequence[float], round: Round
) -> tuple[Exchange, Update]:
    """H7 of an attacked round, and what its observer sees as stacked tensors (clients, ...)."""
    done = defense.exchange([s.payload for s in sent], weights, round)
    return done, {name: torch.stack([row[name] for row in done.view]) for name in done.view[0]}


def _join(parts: list[Tensor]) -> Tensor:
    """The batches of one epoch as one tensor; hard and soft labels are not mixed by any defense."""
    return torch.cat(parts)
