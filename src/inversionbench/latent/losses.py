"""Identity losses: how far the target is from calling an image class y. One value per row, lower is surer.

Arguments of all: logits (n, classes), y int64 (n,). The gradient of the first two vanishes once the target is
sure; the others keep pushing, which is why they exist.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

IdentityLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(o)_y (GMI)."""
    return F.cross_entropy(logits, y, reduction="none")


def one_minus_confidence(logits: Tensor, y: Tensor) -> Tensor:
    """1 - softmax(o)_y (MI-Face).

    >>> one_minus_confidence(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([0.5000])
    """
    return 1 - logits.softmax(1).gather(1, y[:, None])[:, 0]


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """-o_y + max over other classes of o (PLG-MI).

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([-1.])
    """
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).max(1).values - own


def logit(logits: Tensor, y: Tensor) -> Tensor:
    """-o_y (LOMMA, without its feature term)."""
    return -logits.gather(1, y[:, None])[:, 0]


def poincare(logits: Tensor, y: Tensor, slack: float = 1e-4) -> Tensor:
    """Hyperbolic distance between logits scaled to unit l1 norm and (nearly) the one-hot vector (PPA)."""
    u = logits / logits.abs().sum(1, keepdim=True)
    v = (F.one_hot(y, logits.shape[1]).to(logits) - slack).clamp(0, 1)
    inside = (1 - u.square().sum(1)).clamp_min(1e-12) * (1 - v.square().sum(1))
    return torch.acosh(1 + 2 * (u - v).square().sum(1) / inside)


IDENTITY: dict[str, IdentityLoss] = {
    "cross_entropy": cross_entropy,
    "doubt": one_minus_confidence,
    "margin": margin,
    "logit": logit,
    "poincare": poincare,
}


def over_models(main: IdentityLoss) -> IdentityLoss:
    """The mean of a loss over several classifiers, whose logits are (n, models, classes)."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return torch.stack([main(logits[:, i], y) for i in range(logits.shape[1])]).mean(0)

    return loss
