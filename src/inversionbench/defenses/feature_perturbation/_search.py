"""What a defender measures before it chooses transformations: a quick training, and a quick attack on itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.protocol import Protocol
from inversionbench.gradients.matching import Settings, invert
from inversionbench.gradients.problem import Problem
from inversionbench.models.federated import Victim

Transform = Callable[[Tensor, Tensor], Tensor]  # images, labels -> images


def fit(net: Victim, x: Tensor, y: Tensor, steps: int, rng: torch.Generator, transform: Transform | None = None,
        batch: int = 32, rate: float = 2e-3) -> Victim:
    """Central training of `net` in place by Adam, on transformed images. x: (n, c, h, w) in [0, 1], y: (n,)."""
    net.train()
    for norm in net.batch_norms():
        norm.batch = norm.track = True
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(steps):
        part = torch.randint(len(x), (min(batch, len(x)),), generator=rng)
        images = transform(x[part], y[part]) if transform else x[part]
        optimiser.zero_grad()
        F.cross_entropy(net(images), y[part]).backward()
        optimiser.step()
    for norm in net.batch_norms():
        norm.batch = norm.track = False
    return net.eval()  # type: ignore[return-value]


@torch.no_grad()
def accuracy(net: Victim, x: Tensor, y: Tensor) -> float:
    return float((net(x).argmax(dim=1) == y).float().mean())


def attack_errors(net: Victim, x: Tensor, sent: Tensor, y: Tensor, steps: int, rng: torch.Generator) -> Tensor:
    """Mean squared error to x (n, c, h, w) of gradient inversion from the gradients of `sent`, one image each: (n,)."""
    names = [n for n, _ in net.named_parameters()]
    rows = []
    for image, label in zip(sent, y):
        loss = F.cross_entropy(net(image[None]), label[None])
        rows.append(torch.autograd.grad(loss, list(net.parameters())))
    update = {n: torch.stack(parts) for n, parts in zip(names, zip(*rows))}
    settings = Settings(steps, 0.1, 0.01, 1, True, True, "randn", "cosine", "drops", "auto")
    found = invert(Problem(net, Protocol(), update), y[:, None], settings, rng)
    return (found.data[:, 0] - x).square().mean(dim=(1, 2, 3))
