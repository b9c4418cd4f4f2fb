"""Cosine distance between the gradient of dummy rows and the observed one, for a fully connected ReLU network.

With inputs h_l and errors d_l of layer l (d of the logits = (softmax - y) / B, backwards through the masks of the
ReLUs) the gradient of a layer is g_l = [h_l, 1]^T d_l. It need not be formed: for a batch of B rows

    <g_l, G> = sum_n [h_n, 1] G d_n        ||g_l||^2 = sum_nm (h_n . h_m + 1)(d_n . d_m)

so that all trials of a client share one product with G, and the norm costs B x B numbers instead of the layer's.
Clients of several local steps, and masked comparisons, take the long way (`simulate`).

Shapes: z (clients, trials, B, width), y (clients, trials or 1, B, classes), G (clients, width + 1, out).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.models.rows import RowNet
from inversionbench.training._protocol import Protocol

Layer = tuple[Tensor, Tensor]  # weight (..., out, in), bias (..., out)


def layers_of(model: RowNet) -> list[Layer]:
    return [(layer.weight.detach(), layer.bias.detach()) for _, layer in model.stack()]


def observed_of(model: RowNet, update: Mapping[str, Tensor]) -> list[Tensor]:
    """Per layer the gradient (clients, in + 1, out), the bias as its last row."""
    names = [name for name, _ in model.stack()]
    pairs = [(update[f"{n}.weight"].float(), update[f"{n}.bias"].float()) for n in names]
    return [torch.cat([w.mT, b[:, None]], dim=1) for w, b in pairs]


def chain(layers: Sequence[Layer], z: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(h_l, d_l) of every layer, from the input on, for the mean cross entropy over the B rows."""
    inputs, masks = [z], []
    for weight, bias in layers[:-1]:
        a = _affine(inputs[-1], weight, bias)
        masks.append((a > 0).to(z.dtype))
        inputs.append(a.relu())
    logits = _affine(inputs[-1], *layers[-1])
    errors = [(logits.softmax(-1) - y) / z.shape[-2]]
    for (weight, _), mask in zip(reversed(layers[1:]), reversed(masks)):
        errors.append((errors[-1] @ weight) * mask)
    return list(zip(inputs, reversed(errors)))


def simulate(layers: Sequence[Layer], z: Tensor, y: Tensor, protocol: Protocol) -> list[Tensor]:
    """The client's mean gradient along its local steps, per layer (clients, trials, in + 1, out)."""
    total: list[Tensor] = []
    for i, j in protocol.steps:
        pairs = chain(layers, z[..., i:j, :], y[..., i:j, :])
        grads = [torch.cat([h, torch.ones_like(h[..., :1])], -1).mT @ d for h, d in pairs]
        total = [t + g for t, g in zip(total, grads)] if total else grads
        rate = protocol.local_rate
        layers = [(w - rate * g[..., :-1, :].mT, b - rate * g[..., -1, :]) for (w, b), g in zip(layers, grads)]
    return [t / len(protocol.steps) for t in total]


@dataclass(frozen=True)
class Matching:
    """1 - cosine between simulated and observed gradient over all parameters: (clients, trials).

    mask: compare only where the observed gradient is not zero (a defense that removes entries, known to the
    attacker).
    """

    layers: Sequence[Layer]
    observed: Sequence[Tensor]
    protocol: Protocol
    mask: bool = False

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        if self.mask or len(self.protocol.steps) > 1:
            own = simulate(self.layers, z, y, self.protocol)
            return self.distance(own)
        dot, square = torch.zeros(()), torch.zeros(())
        for (h, d), seen in zip(chain(self.layers, z, y), self.observed):
            clients, trials, batch, _ = h.shape
            flat = h.reshape(clients, trials * batch, -1)
            through = torch.baddbmm(seen[:, -1:], flat, seen[:, :-1]).view(clients, trials, batch, -1)
            dot = dot + (through * d).sum((-1, -2))
            square = square + ((h @ h.mT + 1) * (d @ d.mT)).sum((-1, -2))
        return 1 - dot / (square.clamp_min(1e-30).sqrt() * self.norm)

    def distance(self, own: Sequence[Tensor]) -> Tensor:
        """The same from simulated gradients, per layer (clients, trials, in + 1, out)."""
        pairs = [(g * (s[:, None] != 0) if self.mask else g, s[:, None]) for g, s in zip(own, self.observed)]
        dot = torch.stack([(g * s).sum((-1, -2)) for g, s in pairs]).sum(0)
        square = torch.stack([g.square().sum((-1, -2)) for g, _ in pairs]).sum(0)
        return 1 - dot / (square.clamp_min(1e-30).sqrt() * self.norm)

    @property
    def norm(self) -> Tensor:
        """Norm of the observed gradient, (clients, 1)."""
        return torch.stack([s.square().sum((-1, -2)) for s in self.observed]).sum(0).sqrt().clamp_min(1e-30)[:, None]


def _affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(h, weight, bias) if weight.dim() == 2 else h @ weight.mT + bias.unsqueeze(-2)
