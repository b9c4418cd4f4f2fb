"""Cosine distance between the gradient of dummy rows and the observed one, for a fully connected ReLU network.

With inputs h_l and errors d_l of layer l (d of the logits = (softmax - y) / B, backwards through the masks of the
ReLUs) the gradient of a layer is g_l = [h_l, 1]^T d_l. It need not be formed: for a batch of B rows

    <g_l, G> = sum_n [h_n, 1] G d_n        ||g_l||^2 = sum_nm (h_n . h_m + 1)(d_n . d_m)

so that all trials of a client share one product with G, and the norm costs B x B numbers instead of the layer's.
Its slope at z is written out too (`Matching.slope`): first back through the errors, then through the inputs.
Clients of several local steps, and masked comparisons, take the long way (`simulate`, autograd).

Shapes: z (clients, trials, B, width), y (clients, trials or 1, B, classes), G (clients, width + 1, out).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.protocol import Protocol
from inversionbench.models.rows import RowNet

Layer = tuple[Tensor, Tensor]  # weight (..., out, in), bias (..., out)
View = Callable[[Sequence[Tensor]], list[Tensor]]
TINY = 1e-30


def layers_of(model: RowNet) -> list[Layer]:
    return [(layer.weight.detach(), layer.bias.detach()) for _, layer in model.stack()]


def observed_of(model: RowNet, update: Mapping[str, Tensor]) -> list[Tensor]:
    """Per layer the gradient (clients, in + 1, out), the bias as its last row."""
    names = [name for name, _ in model.stack()]
    pairs = [(update[f"{n}.weight"].float(), update[f"{n}.bias"].float()) for n in names]
    return [torch.cat([w.mT, b[:, None]], dim=1) for w, b in pairs]


def as_gradient(update: Mapping[str, Tensor], protocols: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Updates (clients, ...) as gradients: weight differences become the mean gradient along the client's path.
    protocols: each client's settings."""
    factor = torch.tensor([Protocol(**plain).scale for plain in protocols], dtype=torch.float64)
    return {n: t * factor.to(t.dtype).view(-1, *[1] * (t.dim() - 1)) for n, t in update.items()}


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
class _Term:
    """One layer's part. through: [h, 1] G. inputs, errors: the B x B products. dot, square: (clients, trials)."""

    through: Tensor
    inputs: Tensor
    errors: Tensor
    dot: Tensor
    square: Tensor


@dataclass(frozen=True)
class Matching:
    """1 - cosine between simulated and observed gradient over all parameters: (clients, trials).

    view: what both go through before they are compared; keep: 0 and 1 for each entry of the view, (clients, ...): what
    is compared (a defense that removes entries or coefficients, known to the attacker). None: as they are, and all.
    """

    layers: Sequence[Layer]
    observed: Sequence[Tensor]
    protocol: Protocol
    view: View | None = None
    keep: Sequence[Tensor] | None = None

    @property
    def direct(self) -> bool:
        """Whether the gradient need not be formed."""
        return self.view is None and self.keep is None and len(self.protocol.steps) == 1

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        if not self.direct:
            return self.distance(simulate(self.layers, z, y, self.protocol))
        dot, square = _sums(self._terms(chain(self.layers, z, y)))
        return 1 - dot / (square.sqrt() * self.norm)

    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """d distance / dz, of the shape of z."""
        if not self.direct:
            free = z.detach().requires_grad_(True)
            return torch.autograd.grad(self(free, y).sum(), free)[0]
        pairs = chain(self.layers, z, y)
        terms = self._terms(pairs)
        dot, square = _sums(terms)
        toward = (-1 / (square.sqrt() * self.norm))[..., None, None]  # d distance / d dot
        away = (dot / (square.pow(1.5) * self.norm))[..., None, None]  # 2 d distance / d square
        to_input, to_error = [], []
        for (h, d), t, seen in zip(pairs, terms, self.observed):
            back = _shared(d, seen[:, :-1].mT)
            to_input.append(back.mul_(toward).add_((t.errors @ h).mul_(away)))
            to_error.append(t.through.mul_(toward).add_((t.inputs @ d).mul_(away)))
        for i in range(len(pairs) - 1):  # an error comes from the next layer's, through weight and mask
            to_error[i].mul_(pairs[i + 1][0] > 0)
            to_error[i + 1].add_(to_error[i] @ self.layers[i + 1][0].mT)
        share = pairs[-1][1] * z.shape[-2] + y
        last = to_error[-1]
        carried = share * (last - (share * last).sum(-1, keepdim=True)) / z.shape[-2]
        for i in reversed(range(len(pairs))):
            to_input[i].add_(carried @ self.layers[i][0])
            carried = to_input[i].mul_(pairs[i][0] > 0) if i else to_input[i]
        return carried

    def _terms(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[_Term]:
        out = []
        for (h, d), seen in zip(pairs, self.observed):
            through = _shared(h, seen[:, :-1]) + seen[:, None, -1:]
            inputs, errors = h @ h.mT + 1, d @ d.mT
            dot, square = (through * d).sum((-1, -2)), (inputs * errors).sum((-1, -2))
            out.append(_Term(through, inputs, errors, dot, square))
        return out

    def distance(self, own: Sequence[Tensor]) -> Tensor:
        """The same from simulated gradients, per layer (clients, trials, in + 1, out)."""
        own = self.view(own) if self.view else own
        kept = own if self.keep is None else [g * k[:, None] for g, k in zip(own, self.keep)]
        pairs = [(g, s[:, None]) for g, s in zip(kept, self.compared)]
        dot = torch.stack([_total(g * s, 2) for g, s in pairs]).sum(0)
        square = torch.stack([_total(g.square(), 2) for g, _ in pairs]).sum(0)
        return 1 - dot / (square.clamp_min(TINY).sqrt() * self.norm)

    @cached_property
    def compared(self) -> list[Tensor]:
        """What of the observed gradient is compared."""
        seen = self.view(self.observed) if self.view else list(self.observed)
        return seen if self.keep is None else [s * k for s, k in zip(seen, self.keep)]

    @cached_property
    def norm(self) -> Tensor:
        """Norm of what is compared of the observed gradient, (clients, 1)."""
        return torch.stack([_total(s.square(), 1) for s in self.compared]).sum(0).sqrt().clamp_min(TINY)[:, None]


def _total(t: Tensor, leading: int) -> Tensor:
    """Sum over all axes but the first ones."""
    return t.sum(tuple(range(leading, t.dim())))


def _sums(terms: Sequence[_Term]) -> tuple[Tensor, Tensor]:
    """Inner product with the observed gradient, and own squared norm, over all layers."""
    return torch.stack([t.dot for t in terms]).sum(0), torch.stack([t.square for t in terms]).sum(0).clamp_min(TINY)


def _shared(h: Tensor, seen: Tensor) -> Tensor:
    """h (clients, trials, B, k) times seen (clients, k, m), one product per client."""
    clients, trials, batch, _ = h.shape
    return torch.bmm(h.reshape(clients, trials * batch, -1), seen).view(clients, trials, batch, -1)


def _affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(h, weight, bias) if weight.dim() == 2 else h @ weight.mT + bias.unsqueeze(-2)
