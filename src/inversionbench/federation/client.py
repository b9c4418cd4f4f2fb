"""What a federated client does in one round, with the hooks of a defense in their places.

    model <- global parameters                       H3 build_model has acted when the server built it
    for each local step, samples [i, j) of the batch in order:
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
the batch statistics travel beside it. Images, rows and sentences take the same path: a sample is whatever the model
reads, and the loss is the cross entropy of whatever it predicts.
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
from inversionbench.models.federated import BatchNorm

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


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """The batch norms of a model, in order; none where it has none."""
    return [m for m in model.modules() if isinstance(m, BatchNorm)]


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
    """Local training: (update, x', y'). x: (batch, ...), as the model reads it; y: (batch, ...), as the loss does.
    `model` is left as it was. expected: see `Step`.

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
    return gradients, torch.cat(used_x), torch.cat(used_y)


def send(
    model: nn.Module, x: Tensor, y: Tensor, protocol: Protocol, defense: Defense, client: Client, classes: int
) -> Sent:
    """One client's whole round up to H6; randomness from `client.rng`."""
    norms = batch_norms(model)
    for norm in norms:
        norm.mode(protocol.bn)
    update, used_x, used_y = local_update(model, x, y, protocol, defense, classes, client.rng)
    sent = upload(model, update, used_x, used_y, defense, client)
    if protocol.bn == "train_shared":
        sent.statistics = [(n.seen[0].detach(), n.seen[1].detach()) for n in norms if n.seen]
    return sent


def upload(model: nn.Module, update: Update, x: Tensor, y: Tensor, defense: Defense, client: Client) -> Sent:
    """H6: an update on its way to the server. model, x, y: the global one, and what the update was trained on."""
    client.model, client.x, client.y = model, x, y
    payload = defense.client_update(update, client)
    return Sent(update, payload, defense.bytes_sent(payload), x, y, public=dict(client.state.get("public", {})))


def exchange(
    defense: Defense, sent: Sequence[Sent], weights: Sequence[float], round: Round
) -> tuple[Exchange, Update]:
    """H7, and what its observer sees as stacked tensors (clients, ...). A defense that shows one tensor for all clients
    (a sum) gives it to every client's row: the attacker has nothing better for any of them."""
    done = defense.exchange([s.payload for s in sent], weights, round)
    return done, {name: torch.stack([row[name] for row in done.view]) for name in done.view[0]}
