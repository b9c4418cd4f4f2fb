"""Robust accuracy: how often a network is still right after a small, targeted change of its input.

Targeted PGD (Madry et al., ICLR 2018): towards one wrong class for each image, drawn by the seed,

    x' <- clip(x' - rate sign(grad CE(f(x'), wrong)), to [x - eps, x + eps] and [0, 1]),      `steps` times from x

Right means: f(x') is the true class; an image that was wrong before counts as wrong. The default change, 2/255 in ten
steps of 0.5/255, cannot be seen: what it breaks are features that are not of the kind that people look at. A network
that hides its gradient (a step that has none, noise) looks more robust than it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Spec

EPS, STEPS = 2 / 255, 10
SPEC = Spec("robust_accuracy", "robust accuracy", unit="%", factor=100, digits=1, direction="higher", kind="utility",
            note="under targeted PGD within 2/255, 10 steps")  # fmt: skip


def targeted_pgd(
    model: nn.Module, x: Tensor, wrong: Tensor, eps: float = EPS, rate: float = EPS / 4, steps: int = STEPS
) -> Tensor:
    """x (n, ...) in [0, 1] moved towards the classes `wrong` (n,), by at most eps in every value."""
    moved = x.detach().clone()
    for _ in range(steps):
        moved.requires_grad_(True)
        (slope,) = torch.autograd.grad(F.cross_entropy(model(moved), wrong, reduction="sum"), moved)
        moved = (moved.detach() - rate * slope.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return moved


def other_classes(y: Tensor, classes: int, rng: torch.Generator) -> Tensor:
    """For each of y (n,) one of the other classes, all equally likely."""
    return (y + torch.randint(1, classes, y.shape, generator=rng).to(y.device)) % classes


def robust_accuracy(
    model: nn.Module, x: Tensor, y: Tensor, eps: float = EPS, steps: int = STEPS, seed: int = 0, batch: int = 256
) -> float:
    """Share of images x (n, ...) in [0, 1] of classes y (n,) that are still recognised, in [0, 1]; eps 0: accuracy.

    The network is used as it is (call `eval` before). Raises `UserError` where there is nothing to measure on.

    >>> net = nn.Linear(1, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    >>> x = torch.tensor([[0.5], [0.3]]) - 0.45
    >>> robust_accuracy(lambda z: net(z), x.clamp(0, 1), torch.tensor([0, 1])), 0.5
    (0.5, 0.5)
    """
    if len(x) == 0 or len(x) != len(y):
        raise UserError(f"robust_accuracy: expected as many images as classes, at least one, got {len(x)}, {len(y)}")
    rng, right = torch.Generator().manual_seed(seed), 0
    for part, own in zip(x.split(batch), y.split(batch), strict=True):
        with torch.no_grad():
            classes = model(part[:1]).shape[1]
        moved = targeted_pgd(model, part, other_classes(own, classes, rng), eps, eps / 4, steps)
        with torch.no_grad():
            right += int((model(moved).argmax(1) == own).sum())
    return right / len(x)
