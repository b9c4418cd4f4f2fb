"""A client half that searches what it sends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.models.inverse import Inverse
from inversionbench.models.split import flops

OWN = ("inverse",)  # layers that are no part of the way from image to features


class Crafting(nn.Sequential):
    """The client's layers, an inverse network beside them, and public images of strangers."""

    inverse: Inverse
    strangers: Tensor

    def __init__(
        self, client: nn.Sequential, shape: Sequence[int], strangers: int, width: int, steps: int, rate: float
    ):
        super().__init__(*client)
        with torch.no_grad():
            seen = client(torch.zeros(1, *shape)).shape[1:]
        self.inverse = Inverse(tuple(seen), tuple(shape), width)  # type: ignore[arg-type]
        self.register_buffer("strangers", torch.zeros(strangers, *shape))
        self.steps, self.rate = steps, rate

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            if name not in OWN:
                x = layer(x)
        return x

    def error(self, x: Tensor) -> Tensor:
        """Mean squared error of the inverse network on images x, whose gradient reaches that network alone."""
        with torch.no_grad():
            z = self(x)
        return F.mse_loss(self.inverse(z), x)

    def flops(self, inputs: tuple[Tensor, ...], out: Tensor) -> int:
        """Of the search for features `out`: in each step the inverse network forwards, and twice as much backwards."""
        return 3 * self.steps * flops(self.inverse, out)

    def craft(self, z: Tensor, beta: float) -> Tensor:
        """What is sent for each of z: (n, ...), whatever the others are."""
        with torch.no_grad():
            prior = self.inverse(self(self.strangers)).flatten(1)  # (strangers, values)
        scale = z.square().flatten(1).mean(1).sqrt().clamp_min(1e-6).view(-1, *[1] * (z.dim() - 1))
        with torch.enable_grad():
            shift = torch.zeros_like(z, requires_grad=True)
            adam = torch.optim.Adam([shift], self.rate)
            for _ in range(self.steps):
                shown = self.inverse(z.detach() + scale * shift).flatten(1)
                far = torch.cdist(shown, prior).mean(1) / shown.shape[1] ** 0.5
                loss = (far + beta * shift.square().flatten(1).mean(1)).sum()
                (shift.grad,) = torch.autograd.grad(loss, shift)
                adam.step()
        return z + scale * shift.detach()
