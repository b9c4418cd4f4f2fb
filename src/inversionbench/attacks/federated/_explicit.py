"""The client's gradient for many trials at once, for networks that are a chain of simple layers.

`Network.gradient` is one forward and one backward pass; `Network.pullback` is the tangent pass of `_ops`.
`Gradient` joins them for autograd, so objectives, regularisers and generators stay ordinary torch code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.attacks.federated._layout import Layout, layout_of
from inversionbench.attacks.federated._ops import (
    ColumnsConvolution,
    Convolution,
    Dense,
    GroupedConvolution,
    Op,
    Tape,
    Weights,
)
from inversionbench.attacks.federated._ops_plain import (
    AveragePool,
    FixedNorm,
    Flatten,
    GlobalAverage,
    LeakyRelu,
    Relu,
    Sigmoid,
    Silu,
    Tanh,
    add,
)
from inversionbench.models import federated as victims

Size = tuple[int, tuple[int, int]]  # channels, (height, width)


class Unsupported(Exception):
    """The network is not a chain of layers that this form knows."""


class Chain(Op):
    """Layers one after the other. `ops`: (layer, how many parameters it takes)."""

    def __init__(self, ops: list[tuple[Op, int]]):
        self.ops = ops
        self.orders = tuple(order for op, _ in ops for order in op.orders)

    def _split(self, w: Weights) -> list[Weights]:
        out, at = [], 0
        for _, count in self.ops:
            out.append(w[at : at + count])
            at += count
        return out

    def prepare(self, w: Weights, shared: bool) -> Any:
        return [op.prepare(part, shared) for (op, _), part in zip(self.ops, self._split(w))]

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        tape["tapes"] = [{} for _ in self.ops]
        for (op, _), part, own in zip(self.ops, w, tape["tapes"]):
            a = op.forward(a, part, own)
        return a

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        grads: list[Weights] = []
        back: Tensor | None = d
        for i in reversed(range(len(self.ops))):
            assert back is not None  # only the first layer gives none, and it is the last of this loop
            back, g = self.ops[i][0].backward(back, w[i], tape["tapes"][i], need or i > 0)
            grads.append(g)
        return back, [g for part in reversed(grads) for g in part]

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        for (op, _), part, direction, own in zip(self.ops, w, self._split(v), tape["tapes"]):
            ra = op.tangent_forward(ra, part, direction, own)
        return ra

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        grads: list[Weights] = []
        parts = self._split(v)
        for i in reversed(range(len(self.ops))):
            rd, g = self.ops[i][0].tangent_backward(rd, w[i], parts[i], tape["tapes"][i], curve)
            grads.append(g)
        return rd, [g for part in reversed(grads) for g in part]


class Sum(Op):
    """body(a) + shortcut(a)."""

    def __init__(self, body: Chain, shortcut: Chain):
        self.body, self.shortcut = body, shortcut
        self.count = len(body.orders)
        self.orders = (*body.orders, *shortcut.orders)

    def prepare(self, w: Weights, shared: bool) -> Any:
        return [self.body.prepare(w[: self.count], shared), self.shortcut.prepare(w[self.count :], shared)]

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        tape["b"], tape["s"] = {}, {}
        return self.body.forward(a, w[0], tape["b"]) + self.shortcut.forward(a, w[1], tape["s"])

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        db, gb = self.body.backward(d, w[0], tape["b"], need)
        ds, gs = self.shortcut.backward(d, w[1], tape["s"], need)
        return add(db, ds), [*gb, *gs]

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        b = self.body.tangent_forward(ra, w[0], v[: self.count], tape["b"])
        return add(b, self.shortcut.tangent_forward(ra, w[1], v[self.count :], tape["s"]))

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        b, gb = self.body.tangent_backward(rd, w[0], v[: self.count], tape["b"], curve)
        s, gs = self.shortcut.tangent_backward(rd, w[1], v[self.count :], tape["s"], curve)
        return b + s, [*gb, *gs]


def chain(body: nn.Module, shape: tuple[int, int, int], form: str = "auto") -> Chain:
    """The layers of a network's body; `Unsupported` names the first module that is not known."""
    ops, _ = _chain(body, (shape[0], (shape[1], shape[2])), form)
    return Chain(ops)


def _chain(body: nn.Module, size: Size, form: str) -> tuple[list[tuple[Op, int]], Size]:
    ops: list[tuple[Op, int]] = []
    for module in body.children():
        made, size = _layer(module, size, form)
        ops += made
    return ops, size


def _layer(module: nn.Module, size: Size, form: str) -> tuple[list[tuple[Op, int]], Size]:
    c, hw = size
    if isinstance(module, nn.Conv2d):
        conv = _convolution(module, size, form)
        return [(conv, 1 + conv.bias)], (module.out_channels, conv.out)  # type: ignore[return-value]
    if isinstance(module, nn.Linear):
        return [(Dense(module.bias is not None), 1 + (module.bias is not None))], (module.out_features, (1, 1))
    if isinstance(module, tuple(_ACTIVATIONS)):
        return [(_ACTIVATIONS[type(module)](module), 0)], size
    if isinstance(module, nn.AvgPool2d):
        k = module.kernel_size
        if not isinstance(k, int) or module.stride != k or module.padding or hw[0] % k or hw[1] % k:
            raise Unsupported(f"{module} on {hw}")
        pool = AveragePool(k, hw)
        return [(pool, 0)], (c, pool.out)
    if isinstance(module, nn.Flatten):
        return [(Flatten(c, hw), 0)], (c * hw[0] * hw[1], (1, 1))
    if isinstance(module, victims.GlobalAverage):
        return [(GlobalAverage(hw), 0)], (c, (1, 1))
    if isinstance(module, victims.BatchNorm) and not module.batch:
        return [(FixedNorm(module.running_mean, module.running_var, module.eps), 2)], size
    if isinstance(module, victims.Residual):
        body, after = _chain(module.body, size, form)
        shortcut, _ = _chain(module.shortcut, size, form)
        joined = Sum(Chain(body), Chain(shortcut))
        return [(joined, len(joined.orders)), *_layer(module.activation, after, form)[0]], after
    raise Unsupported(f"{type(module).__name__}")


def _convolution(m: nn.Conv2d, size: Size, form: str) -> Convolution:
    square = m.kernel_size[0] == m.kernel_size[1] and m.stride[0] == m.stride[1] and m.dilation == (1, 1)
    padding = m.padding if isinstance(m.padding, tuple) else (-1, 0)
    if not square or m.groups > 1 or m.padding_mode != "zeros" or not padding[0] == padding[1] < m.kernel_size[0]:
        raise Unsupported(f"{m}")
    made = ColumnsConvolution if form == "im2col" or (form == "auto" and few(m)) else GroupedConvolution
    return made(
        m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], padding[0], size[1], m.bias is not None
    )


def few(m: nn.Conv2d) -> bool:
    """Whether matrix products beat grouped convolutions: few input channels, or strides with large kernels."""
    return m.in_channels < 8 or m.kernel_size[0] > 3


_ACTIVATIONS: dict[type, Any] = {
    nn.ReLU: lambda m: Relu(),
    nn.LeakyReLU: lambda m: LeakyRelu(m.negative_slope),
    nn.Sigmoid: lambda m: Sigmoid(),
    nn.Tanh: lambda m: Tanh(),
    nn.SiLU: lambda m: Silu(),
}


def forms(op: Op) -> list[str]:
    """How each convolution of a chain is computed, in order."""
    if isinstance(op, Chain):
        return [form for part, _ in op.ops for form in forms(part)]
    if isinstance(op, Sum):
        return [*forms(op.body), *forms(op.shortcut)]
    kinds = {ColumnsConvolution: "im2col", GroupedConvolution: "grouped"}
    return [kinds[type(op)]] if isinstance(op, Convolution) else []  # type: ignore[index]


class Network:
    """The chain with weights for `trials` trials. Images: (trials, batch, c, h, w), normalised.

    weights: name -> (trials, *shape) where every trial has its own; else the model's, shared. form: "auto",
    or "im2col" or "grouped" for all convolutions.
    """

    def __init__(
        self,
        model: victims.Victim,
        trials: int,
        weights: Mapping[str, Tensor] | None = None,
        form: str = "auto",
    ):
        self.chain = chain(model.body, model.shape, form)
        named = {n: p.detach() for n, p in model.named_parameters()}
        self.layout: Layout = layout_of({n: p.shape for n, p in named.items()}, self.chain.orders)
        own = weights or {n: p[None].expand(trials, *p.shape) for n, p in named.items()}
        self.flat = self.layout.flatten(own)
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
        tape: Tape = {"prepared": prepared or self.prepared}
        y = y.transpose(0, 1)
        z = self.chain.forward(x.transpose(0, 1).contiguous(), tape["prepared"], tape)
        p = torch.softmax(z, dim=2)
        tape["p"], tape["sum"] = p, y.sum(2, keepdim=True)
        _, parts = self.chain.backward((p * tape["sum"] - y) / len(p), tape["prepared"], tape, need=False)
        return torch.cat([g.flatten(1) for g in parts], dim=1), tape

    def pullback(
        self, v: Tensor, tape: Tape, labels: bool = False, curve: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gradients of <g, v> at x (trials, batch, c, h, w), at y, and with `curve` at the weights."""
        direction = self._tensors(v)
        rz = self.chain.tangent_forward(None, tape["prepared"], direction, tape)
        assert rz is not None
        p = tape["p"]
        centred = (rz - (p * rz).sum(2, keepdim=True)) / len(p)
        rd = p * centred * tape["sum"]
        dx, parts = self.chain.tangent_backward(rd, tape["prepared"], direction, tape, curve)
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
