"""The client's gradient for many trials at once, for networks that are a chain of simple layers.

`Network.gradient` is one forward and one backward pass; `Network.pullback` is the tangent pass of `_ops`.
`Gradient` and `LocalSteps` join them for autograd, so objectives, regularisers and generators stay ordinary
torch code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.gradients.chain import Unsupported, chain, forms
from inversionbench.gradients.layout import Layout, layout_of
from inversionbench.gradients.ops import Tape, Weights
from inversionbench.models.federated import Victim

__all__ = ["Gradient", "LocalSteps", "Network", "Unsupported", "cross_entropy", "forms"]


class Network:
    """The chain with weights for `trials` trials. Images: (trials, batch, c, h, w), normalised.

    weights: name -> (trials, *shape) where every trial has its own; else the model's, shared. form: "auto",
    or "im2col" or "grouped" for all convolutions. compiled: through torch.compile, which needs a C++ compiler
    and half a minute for each shape. dtype: of all passes; what comes in and goes out keeps its own.
    """

    def __init__(
        self,
        model: Victim,
        trials: int,
        weights: Mapping[str, Tensor] | None = None,
        form: str = "auto",
        compiled: bool = False,
        dtype: torch.dtype | None = None,
    ):
        self.chain = chain(model.body, model.shape, form)
        named = {n: p.detach() for n, p in model.named_parameters()}
        self.layout: Layout = layout_of({n: p.shape for n, p in named.items()}, self.chain.orders)
        own = weights or {n: p[None].expand(trials, *p.shape) for n, p in named.items()}
        self.flat = self.layout.flatten(own)
        if dtype is not None:
            self.flat = self.flat.to(dtype)
        self.forward, self.backward = self._gradient, self._pullback
        if compiled:
            self.forward = torch.compile(self._gradient, dynamic=False)
            self.backward = torch.compile(self._pullback, dynamic=False)
        self.prepared = self.at(self.flat, shared=weights is None)

    def at(self, flat: Tensor, shared: bool = False) -> Any:
        """What the passes need of other weights (trials, size)."""
        return self.chain.prepare(self._tensors(flat), shared)

    def _tensors(self, flat: Tensor) -> Weights:
        """Views of a flat (trials, size) vector, each (trials, *shape in its order)."""
        out = []
        for shape, order, place in zip(self.layout.shapes, self.layout.orders, self.layout.slices):
            shape = shape if order is None else tuple(shape[i] for i in order)
            out.append(flat[:, place].view(len(flat), *shape))
        return out

    def gradient(self, x: Tensor, y: Tensor, prepared: Any = None) -> tuple[Tensor, Tape]:
        """Mean cross-entropy gradient (trials, size); y: (trials, batch, classes) probabilities."""
        kind = self.flat.dtype
        prepared = prepared or self.prepared
        g, tape = self.forward(x.to(kind), y.to(kind), prepared)
        return g.to(x.dtype), {**tape, "prepared": prepared}

    def _gradient(self, x: Tensor, y: Tensor, prepared: Any) -> tuple[Tensor, Tape]:
        tape: Tape = {}
        y = y.transpose(0, 1)
        z = self.chain.forward(x.transpose(0, 1).contiguous(), prepared, tape)
        p = torch.softmax(z, dim=2)
        tape["p"], tape["sum"] = p, y.sum(2, keepdim=True)
        _, parts = self.chain.backward((p * tape["sum"] - y) / len(p), prepared, tape, need=False)
        return torch.cat([g.flatten(1) for g in parts], dim=1), tape

    def pullback(
        self, v: Tensor, tape: Tape, labels: bool = False, curve: bool = False
    ) -> tuple[Any, Any, Any]:
        """Gradients of <g, v> at x (trials, batch, c, h, w), at y, and with `curve` at the weights."""
        outer = {k: t for k, t in tape.items() if k != "prepared"}
        parts = self.backward(v.to(self.flat.dtype), tape["prepared"], outer, labels, curve)
        dx, dy, dw = (None if t is None else t.to(v.dtype) for t in parts)
        return dx, dy, dw

    def _pullback(self, v: Tensor, prepared: Any, tape: Tape, labels: bool, curve: bool) -> tuple[Any, Any, Any]:
        direction = self._tensors(v)
        rz = self.chain.tangent_forward(None, prepared, direction, tape)
        assert rz is not None
        p = tape["p"]
        centred = (rz - (p * rz).sum(2, keepdim=True)) / len(p)
        rd = p * centred * tape["sum"]
        dx, parts = self.chain.tangent_backward(rd, prepared, direction, tape, curve)
        dw = torch.cat([g.flatten(1) for g in parts], dim=1) if curve else None
        return dx.transpose(0, 1), -centred.transpose(0, 1) if labels else None, dw


class Gradient(torch.autograd.Function):
    """(x, y, network) -> gradient (trials, size), differentiable once in x and y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, network: Network) -> Tensor:
        g, ctx.tape = network.gradient(x, y)
        ctx.network = network
        return g

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        dx, dy, _ = ctx.network.pullback(v.contiguous(), ctx.tape, ctx.needs_input_grad[1])
        return dx, dy, None


class LocalSteps(torch.autograd.Function):
    """The mean gradient along the path of a client's steps (trials, size), differentiable once in x and y.

    Forward: w_{u+1} = w_u - rate g_u, g = (1/U) sum_u g_u. Backward: with c_u = v/U - rate l_{u+1} the
    cotangent of g_u, l_u = l_{u+1} + d<g_u, c_u>/dw_u and l_U = 0; one tangent pass per step.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, network: Network, steps: list[tuple[int, int]], rate: float
    ) -> Tensor:
        ctx.network, ctx.steps, ctx.rate, ctx.shape = network, steps, rate, (x.shape, y.shape)
        ctx.tapes, total, prepared = [], None, network.prepared
        for u, (i, j) in enumerate(steps):
            g, tape = network.gradient(x[:, i:j], y[:, i:j], prepared)
            ctx.tapes.append(tape)
            total = g if total is None else total + g
            if u + 1 < len(steps):
                prepared = network.at(network.flat[: len(x)] - rate * total)
        assert total is not None
        return total / len(steps)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        dx, dy = v.new_zeros(ctx.shape[0]), v.new_zeros(ctx.shape[1])
        later: Tensor | None = None
        for u in reversed(range(len(ctx.steps))):
            i, j = ctx.steps[u]
            c = v / len(ctx.steps)
            if later is not None:
                c = c - ctx.rate * later
            x_part, y_part, w_part = ctx.network.pullback(c, ctx.tapes[u], ctx.needs_input_grad[1], u > 0)
            dx[:, i:j] += x_part
            if y_part is not None:
                dy[:, i:j] += y_part
            if w_part is not None:
                later = w_part if later is None else later + w_part
        return dx, dy if ctx.needs_input_grad[1] else None, None, None, None


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy of logits (batch, classes) with probabilities y (batch, classes)."""
    return -(y * F.log_softmax(logits, dim=1)).sum(1).mean()
