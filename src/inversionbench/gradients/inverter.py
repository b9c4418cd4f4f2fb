"""Networks that read images off a gradient: features of an update, the pairs they learn from, and their fit."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.gradients.layout import Layout

ENUMERATED = 4  # batches up to this size: all orders at once; larger ones: one assignment after the other
CHUNK = 128  # pairs simulated at once
SPARSE = 0.75  # a tensor was pruned where its share of non-zeros is below this part of that of plain gradients
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # tried on the validation pairs, relative to the number of pairs


@dataclass(frozen=True)
class InferredCompression:
    """What the client has removed from its gradient, as the update shows: the same is removed from the pairs.

    density: per tensor, the largest share of entries that any client sent; less than 1: the largest entries
    are kept. sign: per tensor, whether only signs arrived.
    """

    density: tuple[float, ...]
    sign: tuple[bool, ...]

    @classmethod
    def seen(cls, observed: Tensor, layout: Layout, plain: Tensor) -> InferredCompression:
        """observed: (clients, size). plain: (n, size), gradients of public images of which nothing was removed; they
        have zeros of their own where units are dead.
        """
        density, sign = [], []
        for place in layout.slices:
            part = observed[:, place]
            share = float((part != 0).double().mean(1).max())
            usual = float((plain[:, place] != 0).double().mean())
            density.append(share if 0 < share < SPARSE * usual else 1.0)
            size = part.abs().double()
            flat = (size - size.max(1, keepdim=True).values).abs() <= 1e-6 * size.max(1, keepdim=True).values
            sign.append(part.shape[1] > 2 and bool((flat | (part == 0)).all()) and bool(part.any()))
        return cls(tuple(density), tuple(sign))

    def __call__(self, g: Tensor, layout: Layout) -> Tensor:
        """g: (n, size)."""
        parts = []
        for place, share, signs in zip(layout.slices, self.density, self.sign):
            part = g[:, place]
            if share < 1:
                keep = max(1, round(share * part.shape[1]))
                least = part.abs().topk(keep, dim=1).values[:, -1:]
                part = part * (part.abs() >= least)
            parts.append(part.sign() * part.abs().mean(1, keepdim=True) if signs else part)
        return torch.cat(parts, dim=1)

    @property
    def facts(self) -> dict[str, Any]:
        return {"pruned_tensors": sum(d < 1 for d in self.density), "sign_tensors": sum(self.sign)}


class Hash:
    """Random signed sums of the entries of a vector: (n, size) to (n, bins); the identity where size <= bins.

    Every entry goes to one bin (Weinberger et al., ICML 2009). `counts`: entries per bin.
    """

    def __init__(self, size: int, bins: int, rng: torch.Generator):
        self.width = min(size, bins)
        if size <= bins:
            self.bin, self.flip = torch.arange(size), torch.ones(size)
        else:
            self.bin = torch.randint(bins, (size,), generator=rng)
            self.flip = torch.randint(2, (size,), generator=rng) * 2.0 - 1
        self.counts = torch.bincount(self.bin, minlength=self.width).float()

    def __call__(self, g: Tensor) -> Tensor:
        out = g.new_zeros(len(g), self.width)
        return out.index_add_(1, self.bin.to(g.device), g * self.flip.to(g.device))


def assign(cost: Tensor) -> Tensor:
    """cost (n, B, B) of image i told by slot j: for each of n groups the slot of every image, (n, B)."""
    size = cost.shape[1]
    if size <= ENUMERATED:
        orders = torch.tensor(list(permutations(range(size)))).to(cost.device)
        totals = cost[:, torch.arange(size, device=cost.device)[None], orders].sum(2)  # (n, orders)
        return orders[totals.argmin(1)]
    from scipy.optimize import linear_sum_assignment

    rows = [torch.from_numpy(linear_sum_assignment(c)[1]) for c in cost.cpu().numpy()]
    return torch.stack(rows).to(cost.device)


def set_loss(made: Tensor, x: Tensor) -> Tensor:
    """Mean squared error of made (n, B, values) to x in the best order of each group: (n,)."""
    if x.shape[1] == 1:
        return (made - x).square().mean((1, 2))
    cost = torch.cdist(x, made.detach()).square()
    order = assign(cost)
    return (made.gather(1, order[..., None].expand_as(made)) - x).square().mean((1, 2))


@dataclass
class Pairs:
    """Hashed gradients f (n, width), not yet standardised, and what they came from, x (n, B, values) in [0, 1].

    noise: standard deviation per feature of what the client adds.
    """

    f: Tensor
    x: Tensor
    noise: Tensor

    def noisy(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """Features as the server would see them, with fresh noise."""
        f = self.f[index]
        if not bool(self.noise.any()):
            return f
        return f + self.noise * torch.randn(f.shape, generator=rng).to(f.device)


class Inverter(nn.Module):
    """f (n, width), standardised here, to images (n, B, values) in [0, 1]."""

    def __init__(self, mean: Tensor, std: Tensor, net: nn.Module, batch: int):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.mean: Tensor
        self.std: Tensor
        self.net, self.batch = net, batch

    def forward(self, f: Tensor) -> Tensor:
        return self.net((f - self.mean) / self.std).unflatten(1, (self.batch, -1))


def scale_of(pairs: Pairs, index: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature, noise included; features that never move are left alone."""
    std = (pairs.f[index].var(0) + pairs.noise.square()).sqrt()
    return pairs.f[index].mean(0), torch.where(std > 1e-12, std, torch.ones_like(std))


def fit_network(
    pairs: Pairs, train: Tensor, check: Tensor, hidden: int, epochs: int, rate: float, size: int,
    rng: torch.Generator,
) -> tuple[Inverter, list[float]]:
    """Two hidden layers, ReLU and sigmoid; the state of the epoch with the lowest error on the pairs `check`.

    Returns the network and the validation error of each epoch. Rate x 0.1 after 75 % of the epochs.
    """
    width, batch, values = pairs.f.shape[1], pairs.x.shape[1], pairs.x.shape[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
        net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
                            nn.Linear(hidden, batch * values), nn.Sigmoid())  # fmt: skip
    model = Inverter(*scale_of(pairs, train), net, batch).to(pairs.f.device)
    optimiser = torch.optim.Adam(model.parameters(), rate)
    seen = pairs.noisy(check, rng)
    history: list[float] = []
    best: dict[str, Tensor] = {}
    for epoch in range(epochs):
        for group in optimiser.param_groups:
            group["lr"] = rate * (0.1 if epoch >= 0.75 * epochs else 1.0)
        for index in train[torch.randperm(len(train), generator=rng)].split(size):
            loss = set_loss(model(pairs.noisy(index, rng)), pairs.x[index]).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            history.append(float(set_loss(model(seen), pairs.x[check]).mean()))
        if history[-1] == min(history):
            best = {name: t.detach().clone() for name, t in model.state_dict().items()}
    model.load_state_dict(best)
    return model.eval(), history


def fit_ridge(
    pairs: Pairs, train: Tensor, check: Tensor, rng: torch.Generator
) -> tuple[Inverter, list[float]]:
    """The linear inverter in closed form, the ridge with the lowest error on the pairs `check`.

    Noise enters the covariance exactly. For batches, slots are told in the order of brightness.
    """
    batch, values = pairs.x.shape[1:]
    mean, std = scale_of(pairs, train)
    f = (pairs.f[train] - mean) / std
    order = pairs.x[train].mean(2).argsort(1)
    x = pairs.x[train].gather(1, order[..., None].expand(-1, -1, values)).flatten(1)
    centre = x.mean(0)
    gram = (f.T @ f).double() + torch.diag((pairs.noise / std).square().double()) * len(f)
    right = (f.T @ (x - centre)).double()
    seen, history, best = pairs.noisy(check, rng), [], None
    for ridge in RIDGES:
        shifted = gram + ridge * len(f) * 0.01 * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        weight = torch.cholesky_solve(right, torch.linalg.cholesky(shifted)).float()
        net = nn.Linear(f.shape[1], batch * values)
        net.weight, net.bias = nn.Parameter(weight.T.contiguous()), nn.Parameter(centre.clone())
        model = Inverter(mean, std, nn.Sequential(net, nn.Hardtanh(0.0, 1.0)), batch).eval()
        with torch.no_grad():
            history.append(float(set_loss(model(seen), pairs.x[check]).mean()))
        if history[-1] == min(history):
            best = model
    assert best is not None
    return best, history
