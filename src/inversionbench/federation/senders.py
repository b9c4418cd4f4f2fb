"""One attacked round of clients with small batches, for tables and text (see `federation/client.py`).

The attacked clients take part for the first time, so a defense with memory enters with an empty one. Clients of
one batch size make one round: what H7 mixes, it mixes among them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.defense import Client, Defense
from inversionbench.core.protocol import Protocol
from inversionbench.core.seeds import stream
from inversionbench.federation.batches import Batches
from inversionbench.federation.client import Sent, Update, local_update, observe


def send(
    model: nn.Module, x: Tensor, y: Tensor, protocol: Protocol, defense: Defense, client: Client, classes: int
) -> Sent:
    """One client's whole round up to H6, for a model without batch norms; randomness from `client.rng`."""
    update, used_x, used_y = local_update(model, x, y, protocol, defense, classes, client.rng)  # type: ignore[arg-type]
    payload = defense.client_update(update, client)
    public = dict(client.state.get("public", {}))
    return Sent(update, payload, defense.bytes_sent(payload), used_x, used_y, public=public)


def attacked_round(
    model: nn.Module, x: Tensor, y: Tensor, batches: Batches, defense: Defense, classes: int, seed: int,
    name: str = "client", rounds: int = 0,
) -> tuple[Update, list[Sent]]:
    """(what the server sees: name -> (clients, ...), what every client sent).

    x: (clients, largest batch, ...), y: (clients, largest batch, ...), the rows beyond a client's own batch
    size unused. rounds: trained before this one.
    """
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    views, everything = [], []
    for protocol, clients in batches.parts():
        n = protocol.batch_size
        sent = [
            send(model, x[i, :n], y[i, :n], protocol, defense,
                 Client(rounds, rounds + 1, place, len(clients), n, parameters, stream(seed, "defense", name, i)),
                 classes)
            for place, i in enumerate(clients)
        ]  # fmt: skip
        views.append(observe(defense, sent, [1.0] * len(sent))[1])
        everything += sent
    return {n: torch.cat([view[n] for view in views]) for n in views[0]}, everything


def price(sent: list[Sent], model: nn.Module, view: Update) -> dict[str, float]:
    """bytes_up and bytes_dense per client, cos_sent_true: cosine of what the server sees and what H6 got; and the
    numbers that the defense itself says of the round."""
    cosines = [
        F.cosine_similarity(flat(s.update), flat({n: t[i] for n, t in view.items()}), dim=0, eps=1e-30)
        for i, s in enumerate(sent)
    ]
    return {
        "bytes_up": float(sum(s.size for s in sent) / len(sent)),
        "bytes_dense": float(4 * sum(p.numel() for p in model.parameters())),
        "cos_sent_true": float(torch.stack(cosines).mean()),
        **{name: float(value) for name, value in sent[0].public.items() if isinstance(value, (int, float))},
    }


def flat(update: Update) -> Tensor:
    """All tensors of one update as one vector of float64, in their order."""
    return torch.cat([t.detach().double().flatten() for t in update.values()])


def as_gradient(update: Update, protocols: list[dict[str, Any]]) -> Update:
    """Updates (clients, ...) as gradients: weight differences become the mean gradient along the client's path."""
    factor = torch.tensor([Protocol(**plain).scale for plain in protocols], dtype=torch.float64)
    return {n: t * factor.to(t.dtype).view(-1, *[1] * (t.dim() - 1)) for n, t in update.items()}
