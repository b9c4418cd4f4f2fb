"""Rank analysis of a convolution: what its output and its weight gradient together say of its input.

A recursive attacker (R-GAP: Zhu and Blaschko, ICLR 2021) who knows the output z of a convolution without its bias
and the loss gradient d at z has two sets of linear equations for the input x, n unknowns:

    weights    M x = z             one equation per output value
    gradient   K(d) x = dL/dW      one equation per weight

n - rank([M; K]) is the deficit: 0 means that x follows, more means that x moves freely in so many directions
without any change in z, in dL/dW or in anything behind. All in float64; the rank by singular values above
max(shape) * eps * the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Layer:
    """A convolution with what comes before it. up: factor of the upsampling in front, 1 for none."""

    conv: nn.Conv2d
    up: int = 1
    mode: str = "nearest"

    def raised(self, x: Tensor) -> Tensor:
        return x if self.up == 1 else F.interpolate(x, scale_factor=self.up, mode=self.mode)

    def output(self, x: Tensor) -> Tensor:
        """Without the bias. x: (n, c, h, w)."""
        return F.conv2d(self.raised(x), self.conv.weight.to(x), None, self.conv.stride, self.conv.padding)

    def weight_gradient(self, x: Tensor, d: Tensor) -> Tensor:
        """dL/dW of every image alone, (n, out * c * k * k). x: (n, c, h, w), d: (out, h', w')."""
        k = self.conv.kernel_size
        padding = self.conv.padding
        assert not isinstance(padding, str)  # "same" needs a stride of 1
        columns = F.unfold(self.raised(x), k, padding=padding, stride=self.conv.stride)
        return torch.einsum("ol,njl->noj", d.flatten(1), columns).flatten(1)


def equations(layer: Layer, shape: Sequence[int], d: Tensor, chunk: int = 256) -> Tensor:
    """[M; K] (outputs + weights, n) for one image of `shape` (c, h, w); d: (out, h', w')."""
    n = int(torch.Size(shape).numel())
    columns = []
    for basis in torch.eye(n, dtype=torch.float64).view(n, *shape).split(chunk):
        columns.append(torch.cat([layer.output(basis).flatten(1), layer.weight_gradient(basis, d.double())], dim=1))
    return torch.cat(columns).T.detach().contiguous()


def rank(a: Tensor) -> int:
    values = torch.linalg.svdvals(a)
    return int((values > max(a.shape) * torch.finfo(a.dtype).eps * values[0]).sum())


def deficit(layer: Layer, shape: Sequence[int], d: Tensor) -> int:
    """How many directions of the input are free."""
    return int(torch.Size(shape).numel()) - rank(equations(layer, shape, d))


def recover(layer: Layer, z: Tensor, gradient: Tensor, shape: Sequence[int], d: Tensor) -> Tensor:
    """The recursive attacker's answer: of the inputs that agree with z (out, h', w') and dL/dW, the shortest."""
    right = torch.cat([z.flatten(), gradient.flatten()]).double()
    a = equations(layer, shape, d)
    return torch.linalg.lstsq(a, right[:, None], driver="gelsd").solution.view(*shape)


def null_vector(a: Tensor) -> Tensor | None:
    """A unit vector that the equations do not see, or None."""
    _, values, rows = torch.linalg.svd(a, full_matrices=True)
    free = a.shape[1] - int((values > max(a.shape) * torch.finfo(a.dtype).eps * values[0]).sum())
    return rows[-1] if free else None
