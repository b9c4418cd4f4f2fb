"""A classifier trained by federated averaging: the global model that every participant receives.

    deal the private images to `clients`           H1 training_set acts on each client's own share
    for each round t < rounds, share * clients of them, drawn anew:
        local <- global model; `epochs` of the recipe on the share (H2, H4, H5; optimiser without memory)
        payload = H6 client_update(local - global)
    global <- global + H7 mean of the payloads, weighted by images; so are the running statistics

McMahan et al., AISTATS 2017. The attacked model is the one broadcast after the last round: a row per round is
a scenario per round, and the first rounds of a longer training are the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import NONE, Client, Defense
from inversionbench.core.exchange import Round
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import draw_seed, spawn
from inversionbench.federation.client import upload
from inversionbench.models.base import channels_last
from inversionbench.training.loop import train_epochs


def fit_rounds(
    factory: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    classes: int,
    recipe: Recipe,
    defense: Defense = NONE,
    rng: torch.Generator | None = None,
    progress: Callable[..., Any] | None = None,
    description: str = "train",
) -> nn.Module:
    """Arguments and result of `training.loop.fit`; recipe.clients > 0."""
    rng = rng if rng is not None else torch.Generator().manual_seed(0)
    order, own = spawn(rng), spawn(rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_seed(rng))
        model = channels_last(defense.build_model(factory)).to(x.device).train()
        shares = [defense.training_set(x[i], y[i], own) for i in deal(len(x), recipe.clients, order)]
        states: list[dict[str, Any]] = [{} for _ in shares]
        rounds = range(recipe.rounds)
        for t in progress(rounds, desc=description, total=recipe.rounds) if progress else rounds:
            _one_round(model, shares, states, t, classes, recipe, defense, order, own)
    return model.eval()


def deal(n: int, clients: int, rng: torch.Generator) -> list[Tensor]:
    """Indices of each client's images: even shares at random."""
    if clients > n:
        raise ValueError(f"clients: {clients} cannot share {n} images; take fewer clients")
    return [part.sort().values for part in torch.randperm(n, generator=rng).tensor_split(clients)]


def _one_round(
    model: nn.Module, shares: list[tuple[Tensor, Tensor]], states: list[dict[str, Any]], t: int, classes: int,
    recipe: Recipe, defense: Defense, order: torch.Generator, own: torch.Generator,
) -> None:
    """One round, in place."""
    parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
    taking = max(1, round(recipe.share * recipe.clients))
    chosen = torch.randperm(recipe.clients, generator=order)[:taking].sort().values.tolist()
    sent, buffers, weights = [], [], []
    for i in chosen:
        local = copy.deepcopy(model)
        x, y = shares[i]
        train_epochs(local, x, y, classes, recipe, defense, order, own)
        update = {name: p.detach() - parameters[name] for name, p in local.named_parameters()}
        client = Client(t, recipe.rounds, i, taking, len(x), parameters, own, states[i])
        sent.append(upload(model, update, x, y, defense, client))
        buffers.append(dict(local.named_buffers()))
        weights.append(float(len(x)))
    mean = defense.exchange([s.payload for s in sent], weights, Round(t, own, [s.size for s in sent])).mean
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(mean[name])
        for name, kept in model.named_buffers():
            values = [b[name] for b in buffers]
            if kept.is_floating_point():
                kept.copy_(torch.stack([w / sum(weights) * v for w, v in zip(weights, values, strict=True)]).sum(0))
            else:
                kept.copy_(torch.stack(values).amax(0))
