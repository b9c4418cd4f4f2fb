"""From a network's modules to a chain of the layers in `_ops` and `_ops_plain`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from inversionbench.gradients.ops import ColumnsConvolution, Convolution, Dense, GroupedConvolution, Op, Tape, Weights
from inversionbench.gradients.ops_plain import (
    AveragePool,
    Enlarge,
    FixedNorm,
    Flatten,
    GlobalAverage,
    LeakyRelu,
    Relu,
    Sampling,
    Sigmoid,
    Silu,
    Tanh,
    add,
)
from inversionbench.models import federated as victims
from inversionbench.models.bottleneck import Sample

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
    if not isinstance(body, nn.Sequential):
        raise Unsupported(f"{type(body).__name__} is no sequence of layers")
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
    if isinstance(module, nn.Upsample):
        factor = module.scale_factor
        if module.mode != "nearest" or factor is None or factor != int(factor):  # type: ignore[arg-type]
            raise Unsupported(f"{module}")
        enlarge = Enlarge(int(factor), hw)  # type: ignore[arg-type]
        return [(enlarge, 0)], (c, enlarge.out)
    if isinstance(module, nn.Flatten):
        return [(Flatten(c, hw), 0)], (c * hw[0] * hw[1], (1, 1))
    if isinstance(module, Sample):
        return [(Sampling(module), 0)], (c // 2, hw)
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
