"""How strongly each input of a linear layer reacts to the image: row norms of its Jacobian.

For one image the norms are exact (one backward pass per feature, all batched). For larger batches they may be
estimated: for v of independent standard normal entries E (J v)_i^2 = |J_i|^2, so a few forward-mode products give all
rows at once, where exact rows would cost as many passes as there are features. (Plain autograd: the first call of
`torch.func` in a process costs seconds.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from inversionbench.core.defense import Client
from inversionbench.models.federated import Victim

Features = Callable[[Tensor], Tensor]
CHUNK = 64  # copies of an image at once


def inputs_of(model: Victim, layer: str) -> tuple[str, Features]:
    """(name of the weight, function from images to the inputs of that linear layer); "" is the head."""
    name = layer or model.head_names[0].removesuffix(".weight")
    children = list(model.body.named_children())
    names = [f"body.{n}" for n, _ in children]
    if name not in names or not isinstance(children[names.index(name)][1], nn.Linear):
        linear = [n for n, (_, m) in zip(names, children) if isinstance(m, nn.Linear)]
        raise ValueError(f"layer: expected a linear layer ({', '.join(linear)}), got '{name}'")
    before = model.body[: names.index(name)]
    return f"{name}.weight", lambda x: before(model.front(x)).flatten(1)


def batch_of(ctx: Client, who: str) -> tuple[Victim, Tensor, Tensor]:
    """(global model, images, labels) of the client's round."""
    if ctx.model is None or ctx.x is None or ctx.y is None:
        raise ValueError(f"{who} needs the client's model and batch (Client.model, x, y); this track has none")
    return ctx.model, ctx.x.detach(), ctx.y  # type: ignore[return-value]


def row_norms(features: Features, x: Tensor, probes: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(r, n): features and the norms |d r_i / d x| of each image, both (batch, width).

    probes: 0 for exact norms, else the number of random directions of the estimate.
    """
    if probes:
        directions = torch.randn(probes, *x.shape, generator=rng, dtype=x.dtype)
        with torch.no_grad(), forward_ad.dual_level():
            moving = forward_ad.make_dual(x.repeat(probes, 1, 1, 1), directions.flatten(0, 1))
            r, change = forward_ad.unpack_dual(features(moving))
        return r[: len(x)], change.view(probes, len(x), -1).square().mean(dim=0).sqrt()
    with torch.no_grad():
        r = features(x)
    norms = torch.zeros_like(r)
    for n, image in enumerate(x):
        for part in torch.arange(r.shape[1]).split(CHUNK):
            copies = image.expand(len(part), *image.shape).clone().requires_grad_()
            chosen = features(copies)[torch.arange(len(part)), part].sum()
            norms[n, part] = torch.autograd.grad(chosen, copies)[0].flatten(1).norm(dim=1)
    return r, norms
