"""What a defense of split inference does by itself: an attacker that it simulates, a training before the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.defense import Step
from inversionbench.core.seeds import draw_seed
from inversionbench.models.base import trace
from inversionbench.models.inverse import Inverse

if TYPE_CHECKING:
    from inversionbench.core.defense import Defense


class Simulated:
    """An inverse network that learns beside the halves. z: (n, ...) features; x: (n, channels, height, width) in
    [0, 1], the images behind them. It is never the attacker that a row of a table is about."""

    def __init__(self, z: Tensor, x: Tensor, width: int, rate: float, rng: torch.Generator):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            self.net = Inverse(tuple(z.shape[1:]), tuple(x.shape[1:]), width).to(z.device)  # type: ignore[arg-type]
        self.optimiser = torch.optim.Adam(self.net.parameters(), rate)

    def learn(self, z: Tensor, x: Tensor) -> None:
        """One step; the features stay as they are."""
        self.net.train()
        self.optimiser.zero_grad()
        F.mse_loss(self.net(z.detach()), x).backward()
        self.optimiser.step()

    def rebuild(self, z: Tensor) -> Tensor:
        """The images as it sees them by its running statistics, with a gradient to z."""
        return self.net.eval()(z)


def train(
    net: nn.Module, x: Tensor, y: Tensor, classes: int, defense: Defense, epochs: int, rng: torch.Generator,
    after: Callable[[], None] | None = None, rate: float = 2e-3, batch: int = 64,
) -> nn.Module:
    """Training in place by Adam with a defense's loss, before the track's own. after: called after every step.
    x: (n, channels, height, width) in [0, 1]; y: int64 (n,)."""
    optimiser = torch.optim.Adam(net.parameters(), rate)
    net.train()
    for epoch in range(epochs):
        for step, part in enumerate(torch.randperm(len(x), generator=rng).split(batch)):
            seen = trace(net, x[part])
            ctx = Step(net, x[part], y[part], seen.logits, seen.hidden, step, epoch, epochs, classes, rng)
            optimiser.zero_grad()
            defense.loss(ctx).backward()
            optimiser.step()
            if after:
                after()
    return net
