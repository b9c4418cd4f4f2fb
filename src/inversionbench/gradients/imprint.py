"""Weights that an active server plants, so that a gradient, or a sum of many, holds single images (Fowl, Geiping,
Czaja, Goldblum, Goldstein, "Robbing the Fed", ICLR 2022).

Every unit i of a first linear layer measures the same h(x), the mean of the image, against a bias that rises with i:

    a_i = (h(x) - c_i) / bins,   c_1 < ... < c_bins,   the quantiles of a normal distribution fitted to public images

and every unit has the same way on to the loss (the columns of the second layer are equal), so that an image adds the
same row to the gradients of all units that it turns on. Neighbouring units differ by the images of one bin:

    (dW_i - dW_{i+1}) / (db_i - db_{i+1}) = x      where the bin holds one image, else a blend of its images

disguise: the size, beside the measure, of random patterns added to the rows. Those of the first layer are checkerboards
under a smooth random sign, which photographs hardly answer to, and those of the second lie where the third layer does
not look; the rows then are no longer parallel. Images that answer to a pattern leave their order, not the ratios.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.models.federated import Victim

SMOOTH = 8  # side of the random field below a checkerboard
LARGEST = 0.5  # entries of one image's gradient: a protocol clips what is larger, and rounds what is small
ON = 1.0  # bias of the second layer: all its units stay on


def linears(model: nn.Module) -> list[nn.Linear]:
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


def plant(
    model: Victim, public: Tensor, bins: int, disguise: float, rng: torch.Generator
) -> Victim:
    """A copy of a fully connected network with planted weights; units beyond `bins` are off.

    public: (n, channels, height, width), as the first layer reads images (behind the normalisation).
    """
    model = copy.deepcopy(model)
    first, second, *rest = linears(model)
    means = public.flatten(1).double().mean(1)
    places = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    levels = means.mean() + means.std() * torch.special.ndtri(places)
    rows = torch.ones(bins, first.in_features) + disguise * _patterns(bins, tuple(public.shape[1:]), rng)
    with torch.no_grad():
        first.weight.zero_()
        first.bias.fill_(-1.0)
        first.weight[:bins] = rows / (first.in_features * bins)
        first.bias[:bins] = -levels.float() / bins
        if rest:
            hidden = torch.randn(second.weight.shape, generator=rng)
            _, s, v = torch.linalg.svd(rest[0].weight, full_matrices=True)
            free = v[int((s > 1e-6).sum()) :]  # directions of the second layer's units that the third ignores
            hidden = free.T @ (free @ hidden)
            if len(free):
                hidden = hidden / hidden.square().mean().sqrt()
            second.weight.copy_(1.0 + disguise * hidden)
            second.bias.fill_(ON)
        else:
            second.weight.copy_(torch.randn(second.out_features, 1, generator=rng).expand_as(second.weight))
        reach = max(_reach(model, public[:1], label) for label in range(model.classes))
        second.weight.mul_(LARGEST / max(reach, 1e-12))
    return model


@torch.enable_grad()
def _reach(model: Victim, x: Tensor, label: int) -> float:
    """The largest entry of the first layer's gradient for one image under one label."""
    loss = F.cross_entropy(model.body(x), torch.tensor([label]))
    return float(torch.autograd.grad(loss, linears(model)[0].weight)[0].abs().max())


def _patterns(count: int, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """(count, d), each of root mean square 1 and mean 0."""
    channels, height, width = shape
    board = (-1.0) ** (torch.arange(height)[:, None] + torch.arange(width))
    field = torch.randn(count, channels, min(SMOOTH, height), min(SMOOTH, width), generator=rng)
    rows = (F.interpolate(field, (height, width), mode="bilinear") * board).flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.square().mean(1, keepdim=True).sqrt()


def differences(dw: Tensor, db: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """What each bin adds: (dW (bins, d), db (bins,)) from dW (units, d) and db (units,). The last unit is a bin of its
    own."""
    dw, db = dw[:bins].double(), db[:bins].double()
    return dw - torch.cat([dw[1:], dw[:1] * 0]), db - torch.cat([db[1:], db[:1] * 0])
