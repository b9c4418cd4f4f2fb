"""Layers of many trials at once, with the four passes that gradient matching needs, written out by hand.

The dummy gradient is g = d loss / d theta, and an objective J(g) has the cotangent V = dJ/dg. Then

    dJ/dx = d/dx <g, V> = d/dx (d/de loss(theta + e V; x)) at e = 0,

so after the ordinary forward and backward pass (which give g) the input gradient needs a forward and a
backward pass of *tangents* in the direction V (Pearlmutter, Neural Computation 1994), and no graph of a graph.
With a the input of a layer, z its output, d the gradient at z, and R the tangent of each:

    linear in w:  z = w a          g_w = d a^T          Rz = w Ra + V a       d_in = w^T d
                                                        Rd_in = w^T Rd + V^T d
    element-wise: z = f(a)         d_in = f'(a) d       Rz = f'(a) Ra         Rd_in = f'(a) Rd + f''(a) Ra d

Tangents of the weight gradient (for clients of several steps): Rg_w = Rd a^T + d Ra^T.

Images are (batch, trials, channels, h, w): all images of all trials are one batch for what has the same
weights in every trial, and trials are groups of channels for what has not. Features are (batch, trials,
width). Weights and directions have the trial first; `prepare` may drop it where all trials share.
`need` tells a layer whether the gradient at its input is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.gradients.columns import Columns, Pair, Phases, flat, fold, image
from inversionbench.gradients.layout import Order

Tape = dict[str, Any]
Weights = list[Tensor]


class Op:
    """One layer. `orders`: for each parameter, the axes in the order in which its values lie when flat."""

    orders: tuple[Order, ...] = ()

    def prepare(self, w: Weights, shared: bool) -> Any:
        """What is made of the weights once and used in every pass. shared: equal in all trials."""
        return w

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        raise NotImplementedError

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        raise NotImplementedError

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        """Rz; ra is None at the input, which the direction V does not move."""
        raise NotImplementedError

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        """Rd_in, and with `curve` the tangents of the weight gradients."""
        raise NotImplementedError


class Convolution(Op):
    """2-D convolution, one group, square, zero padding. What all its forms share."""

    def __init__(self, c: int, o: int, k: int, stride: int, padding: int, size: Pair, bias: bool):
        self.c, self.o, self.k, self.stride, self.padding = c, o, k, stride, padding
        self.size, self.bias = size, bias
        self.out = tuple((n + 2 * padding - k) // stride + 1 for n in size)

    def _bias(self, z: Tensor, bias: Tensor) -> Tensor:
        return z.add_(bias[:, :, None, None]) if self.bias else z

    def _grads(self, kernel: Tensor, d: Tensor) -> Weights:
        return [kernel, d.sum((0, 3, 4))] if self.bias else [kernel]


class ColumnsConvolution(Convolution):
    """Convolution as batched matrix products of unfolded windows: for few channels.

    The input gradient is made of windows of the output gradient (`Phases`), or of sums of overlapping windows
    (`fold`) where that moves less memory.
    """

    def __init__(self, *shape: Any):
        super().__init__(*shape)
        p = self.padding
        self.columns = Columns(self.c, self.size, self.k, self.stride, p, (p, p))
        rows = self.columns.rows
        self.orders = ((0, 2, 3, 1) if rows else None, None)[: 1 + self.bias]
        self.fold = self.stride == 1 and not rows and self.c < self.o and 2 * p == self.k - 1
        self.phases = Phases(self.c, self.o, self.k, self.stride, p, self.size, self.out, rows)  # type: ignore[arg-type]

    def prepare(self, w: Weights, shared: bool) -> Any:
        back = w[0].flatten(2).transpose(1, 2) if self.fold else self.phases.kernel(w[0])
        return {"w": w[0].flatten(2), "back": back, "bias": w[1] if self.bias else None}

    def _windows(self, d: Tensor, tape: Tape) -> Tensor:
        """What the input gradient is made of, once per pass."""
        if self.fold:
            return tape["d"]
        if "windows" not in tape:
            tape["windows"] = self.phases.columns(d)
        return tape["windows"]

    def _times(self, kernel: Tensor, windows: Tensor, add: Tensor | None = None) -> Tensor:
        if not self.fold:
            return self.phases.columns.times(kernel, windows, add)
        return torch.bmm(kernel, windows) if add is None else torch.baddbmm(add, kernel, windows)

    def _image(self, y: Tensor, batch: int) -> Tensor:
        if self.fold:
            return fold(y, self.c, self.k, self.padding, batch, self.size)
        return self.phases.image(y, batch)

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        tape["a"] = self.columns(a)
        bias = w["bias"][:, :, None] if self.bias else None
        return image(self.columns.times(w["w"], tape["a"], bias), len(a), self.out)  # type: ignore[arg-type]

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        tape["image"], tape["d"] = d, flat(d)
        g = self._grads(self.columns.outer(tape["d"], tape["a"]), d)
        if not need:
            return None, g
        return self._image(self._times(w["back"], self._windows(d, tape)), len(d)), g

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        batch = len(tape["image"])
        add = v[1][:, :, None] if self.bias else None
        if ra is not None:
            tape["ra"] = self.columns(ra)
            add = self.columns.times(w["w"], tape["ra"], add)
        return image(self.columns.times(v[0].flatten(2), tape["a"], add), batch, self.out)  # type: ignore[arg-type]

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        kernel = v[0].flatten(2).transpose(1, 2) if self.fold else self.phases.kernel(v[0])
        y = self._times(kernel, self._windows(tape["image"], tape))
        rflat = flat(rd)
        y = self._times(w["back"], rflat if self.fold else self.phases.columns(rd), y)
        out = self._image(y, len(rd))
        if not curve:
            return out, []
        g = self.columns.outer(rflat, tape["a"])
        if "ra" in tape:
            g = self.columns.outer(tape["d"], tape["ra"], g)
        return out, self._grads(g, rd)


class GroupedConvolution(Convolution):
    """Convolution with the trials as groups of channels: for many channels."""

    orders: tuple[Order, ...] = (None, None)

    def __init__(self, *shape: Any):
        super().__init__(*shape)
        self.orders = (None, None)[: 1 + self.bias]

    def prepare(self, w: Weights, shared: bool) -> Any:
        return {"w": w[0][0].contiguous() if shared else w[0], "bias": w[1] if self.bias else None}

    def _apply(self, a: Tensor, kernel: Tensor) -> Tensor:
        b, t = a.shape[:2]
        if kernel.ndim == 4:  # the same for every trial
            z = F.conv2d(a.flatten(0, 1), kernel, None, self.stride, self.padding)
        else:
            z = F.conv2d(a.flatten(1, 2), kernel.flatten(0, 1), None, self.stride, self.padding, groups=t)
        return z.view(b, t, self.o, *self.out)

    def _both(self, d: Tensor, a: Tensor | None, kernel: Tensor, mask: tuple[bool, bool]) -> tuple[Any, Any]:
        """Gradients at the input (batch, trials, c, h, w) and of the kernels, of which `mask` wants."""
        b, t = d.shape[:2]
        grouped = kernel.ndim == 5
        axes = (1, 2) if grouped else (0, 1)
        d = d.flatten(*axes)
        k = kernel.flatten(0, 1) if grouped else kernel
        a = d.new_empty(1).expand(len(d), self.c * (t if grouped else 1), *self.size) if a is None else a.flatten(*axes)
        s, p = [self.stride] * 2, [self.padding] * 2
        gx, gw, _ = torch.ops.aten.convolution_backward(
            d, a, k, None, s, p, [1, 1], False, [0, 0], t if grouped else 1, [*mask, False]
        )
        gx = gx.view(b, t, self.c, *self.size) if mask[0] else None
        return gx, gw.view(t, self.o, self.c, self.k, self.k) if mask[1] else None

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        tape["a"] = a
        return self._bias(self._apply(a, w["w"]), w["bias"])

    def _outer(self, d: Tensor, a: Tensor) -> Tensor:
        shape = (d.shape[1], self.o, self.c, self.k, self.k)
        return self._both(d, a, d.new_empty(1).expand(shape), (False, True))[1]

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        tape["d"] = d
        g = self._grads(self._outer(d, tape["a"]), d)
        return (self._both(d, None, w["w"], (True, False))[0] if need else None), g

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        z = self._bias(self._apply(tape["a"], v[0]), v[1] if self.bias else None)  # type: ignore[arg-type]
        if ra is not None:
            tape["ra"] = ra
            z.add_(self._apply(ra, w["w"]))
        return z

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        out = self._both(tape["d"], None, v[0], (True, False))[0]
        out = out.add_(self._both(rd, None, w["w"], (True, False))[0])
        if not curve:
            return out, []
        g = self._outer(rd, tape["a"])
        if "ra" in tape:
            g = g + self._outer(tape["d"], tape["ra"])
        return out, self._grads(g, rd)


class Dense(Op):
    """Linear layer on (batch, trials, width)."""

    def __init__(self, bias: bool):
        self.bias = bias
        self.orders = (None, None)[: 1 + bias]

    def prepare(self, w: Weights, shared: bool) -> Any:
        return [w[0].transpose(1, 2).contiguous(), w[0], *w[1:]]

    @staticmethod
    def _times(a: Tensor, m: Tensor) -> Tensor:
        """a (batch, trials, i) times m (trials, i, o): (batch, trials, o)."""
        return torch.bmm(a.transpose(0, 1), m).transpose(0, 1)

    @staticmethod
    def _outer(d: Tensor, a: Tensor) -> Tensor:
        """(trials, o, i)."""
        if len(d) == 1:
            return d[0, :, :, None] * a[0, :, None, :]
        return torch.bmm(d.permute(1, 2, 0), a.transpose(0, 1))

    def _grads(self, w: Tensor, d: Tensor) -> Weights:
        return [w, d.sum(0)] if self.bias else [w]

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        tape["a"] = a
        z = self._times(a, w[0])
        return z + w[2] if self.bias else z

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        tape["d"] = d
        return self._times(d, w[1]) if need else None, self._grads(self._outer(d, tape["a"]), d)

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        z = self._times(tape["a"], v[0].transpose(1, 2))
        if self.bias:
            z = z + v[1]
        if ra is not None:
            tape["ra"] = ra
            z = z + self._times(ra, w[0])
        return z

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        d = tape["d"]
        out = self._times(rd, w[1]) + self._times(d, v[0])
        if not curve:
            return out, []
        g = self._outer(rd, tape["a"])
        if "ra" in tape:
            g = g + self._outer(d, tape["ra"])
        return out, self._grads(g, rd)
