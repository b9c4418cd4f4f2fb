"""The layers without kernels: activations, pooling, reshaping, evaluation-mode batch norm, sampling.

The four passes and the tensor shapes are those of `_ops`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inversionbench.gradients.columns import Pair
from inversionbench.gradients.ops import Op, Tape, Weights
from inversionbench.models.bottleneck import Sample


class Relu(Op):
    """max(a, 0); its second derivative is 0 almost everywhere."""

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        tape["z"] = torch.relu(a)
        return tape["z"]

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        return torch.ops.aten.threshold_backward(d, tape["z"], 0), []

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        return None if ra is None else torch.ops.aten.threshold_backward(ra, tape["z"], 0)

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        return torch.ops.aten.threshold_backward(rd, tape["z"], 0), []


class Smooth(Op):
    """Element-wise f. Subclasses give z, f'(a) and f''(a)."""

    def curve(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        z, tape["slope"], tape["bend"] = self.curve(a)
        return z

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        tape["bend d"] = tape["bend"] * d
        return d * tape["slope"], []

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        if ra is None:
            return None
        tape["extra"] = tape["bend d"] * ra
        return ra * tape["slope"]

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        if "extra" in tape:
            return torch.addcmul(tape["extra"], rd, tape["slope"]), []
        return rd * tape["slope"], []


class LeakyRelu(Smooth):
    def __init__(self, negative: float):
        self.negative = negative

    def curve(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slope = (a > 0).to(a.dtype).mul_(1 - self.negative).add_(self.negative)
        return a * slope, slope, torch.zeros_like(a)


class Sigmoid(Smooth):
    def curve(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = torch.sigmoid(a)
        slope = torch.addcmul(z, z, z, value=-1)
        return z, slope, torch.addcmul(slope, slope, z, value=-2)


class Tanh(Smooth):
    def curve(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = torch.tanh(a)
        slope = 1 - z * z
        return z, slope, -2 * z * slope


class Silu(Smooth):
    def curve(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = torch.sigmoid(a)
        ds = s - s * s
        return a * s, s + a * ds, ds * (2 + a * (1 - 2 * s))


class Linear(Op):
    """A layer without parameters that is linear in its input: `apply` and its transpose."""

    def apply(self, a: Tensor) -> Tensor:
        raise NotImplementedError

    def transpose(self, d: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        return self.apply(a)

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        return self.transpose(d), []

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        return None if ra is None else self.apply(ra)

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        return self.transpose(rd), []


class AveragePool(Linear):
    """Mean over k x k cells; the sides are multiples of k. Across by a matrix product, down by sums."""

    def __init__(self, k: int, size: Pair):
        self.k, self.size = k, size
        self.out = (size[0] // k, size[1] // k)
        self.across = torch.eye(self.out[1]).repeat_interleave(k, dim=0) / k**2  # (w, w / k)

    def _matrix(self, a: Tensor) -> Tensor:
        if self.across.dtype != a.dtype or self.across.device != a.device:
            self.across = self.across.to(a)
        return self.across

    def apply(self, a: Tensor) -> Tensor:
        down = a.unflatten(3, (self.out[0], self.k))
        total = down[..., 0, :]
        for i in range(1, self.k):
            total = total + down[..., i, :]
        return total @ self._matrix(a)

    def transpose(self, d: Tensor) -> Tensor:
        wide = d @ self._matrix(d).T
        out = d.new_empty(*d.shape[:4], self.k, self.size[1])
        for i in range(self.k):
            out[..., i, :] = wide
        return out.flatten(3, 4)


class Enlarge(Linear):
    """Every value k x k times (nearest neighbour)."""

    def __init__(self, k: int, size: Pair):
        self.k, self.size = k, size
        self.out = (k * size[0], k * size[1])

    def apply(self, a: Tensor) -> Tensor:
        h, w = self.size
        wide = a[..., :, None, :, None].expand(*a.shape[:3], h, self.k, w, self.k)
        return wide.reshape(*a.shape[:3], *self.out)

    def transpose(self, d: Tensor) -> Tensor:
        return d.unflatten(4, (self.size[1], self.k)).unflatten(3, (self.size[0], self.k)).sum((4, 6))


class GlobalAverage(Linear):
    """(batch, trials, c, h, w) -> (batch, trials, c)."""

    def __init__(self, size: Pair):
        self.size = size

    def apply(self, a: Tensor) -> Tensor:
        return a.mean(dim=(3, 4))

    def transpose(self, d: Tensor) -> Tensor:
        h, w = self.size
        return (d / (h * w))[..., None, None].expand(*d.shape, h, w).contiguous()


class Flatten(Linear):
    """(batch, trials, c, h, w) -> (batch, trials, c*h*w)."""

    def __init__(self, c: int, size: Pair):
        self.shape = (c, *size)

    def apply(self, a: Tensor) -> Tensor:
        return a.flatten(2)

    def transpose(self, d: Tensor) -> Tensor:
        return d.contiguous().unflatten(2, self.shape)


class FixedNorm(Op):
    """Batch norm with given statistics: z = weight * (a - mean) / sqrt(var + eps) + bias, per channel."""

    orders = (None, None)

    def __init__(self, mean: Tensor, var: Tensor, eps: float):
        self.mean, self.inverse = mean[:, None, None], (var + eps).rsqrt()[:, None, None]

    def prepare(self, w: Weights, shared: bool) -> Any:
        wide = [t[:, :, None, None] for t in w]
        return [*wide, wide[0] * self.inverse]

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        tape["a"] = (a - self.mean) * self.inverse
        return tape["a"] * w[0] + w[1]

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        tape["d"] = d
        return d * w[2], [(d * tape["a"]).sum((0, 3, 4)), d.sum((0, 3, 4))]

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        z = tape["a"] * v[0][:, :, None, None] + v[1][:, :, None, None]
        if ra is not None:
            tape["ra"] = ra * self.inverse
            z = z + ra * w[2]
        return z

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        out = rd * w[2] + tape["d"] * (v[0][:, :, None, None] * self.inverse)
        if not curve:
            return out, []
        g = (rd * tape["a"]).sum((0, 3, 4))
        if "ra" in tape:
            g = g + (tape["d"] * tape["ra"]).sum((0, 3, 4))
        return out, [g, rd.sum((0, 3, 4))]


class Sampling(Op):
    """mean + std * noise of (batch, trials, 2 k), std = softplus(raw), noise fresh in every forward pass; the
    gradient includes that of beta * KL(N(mean, std) || N(0, 1)) in bits, averaged over the batch.
    """

    def __init__(self, layer: Sample):
        self.layer, self.weight = layer, layer.beta / math.log(2)

    def forward(self, a: Tensor, w: Any, tape: Tape) -> Tensor:
        mean, raw = a.chunk(2, dim=-1)
        std, slope = functional.softplus(raw), torch.sigmoid(raw)
        tape["noise"] = self.layer.noise(mean, self.layer.rng)
        tape["mean"], tape["std"], tape["slope"] = mean, std, slope
        return mean + std * tape["noise"]

    def backward(self, d: Tensor, w: Any, tape: Tape, need: bool) -> tuple[Tensor | None, Weights]:
        c, std = self.weight / len(d), tape["std"]
        tape["d std"] = d * tape["noise"] + c * (std - 1 / std)
        return torch.cat([d + c * tape["mean"], tape["d std"] * tape["slope"]], dim=-1), []

    def tangent_forward(self, ra: Tensor | None, w: Any, v: Weights, tape: Tape) -> Tensor | None:
        assert ra is not None  # a layer with parameters comes before
        tape["r mean"], tape["r raw"] = ra.chunk(2, dim=-1)
        return tape["r mean"] + tape["slope"] * tape["r raw"] * tape["noise"]

    def tangent_backward(
        self, rd: Tensor, w: Any, v: Weights, tape: Tape, curve: bool
    ) -> tuple[Tensor, Weights]:
        c, slope = self.weight / len(rd), tape["slope"]
        r_std = slope * tape["r raw"]
        r_d_std = rd * tape["noise"] + c * (1 + tape["std"].square().reciprocal()) * r_std
        bend = tape["d std"] * (slope - slope.square()) * tape["r raw"]
        return torch.cat([rd + c * tape["r mean"], r_d_std * slope + bend], dim=-1), []


def add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of two tangents, where None is zero."""
    return b if a is None else a if b is None else a + b
