"""A layer that answers with the sparse code of its input, and the dense layer that it is compared with.

For an input s (n, c, h, w), standardised image by image, and a dictionary Phi of K atoms (K, c, k, k) of unit norm,
`SparseCode` answers with the code a (n, K, h', w') that minimises

    1/2 ||s - Phi(a)||^2 + threshold sum(a),    a >= 0,        Phi(a): the transposed convolution

by the locally competitive algorithm (Rozell, Johnson, Baraniuk, Olshausen, Neural Computation 2008): from u = 0,

    a = max(u - threshold, 0)        u <- u + 1/tau (b - u - (G - 1) a)        b = Phi^T(s), G = Phi^T Phi

where active atoms inhibit those that overlap with them. G a is computed as Phi^T(Phi(a)): the same, far cheaper than
a convolution with G, and exact at the borders of the image. A learned dictionary is coherent, so the largest stable
rate is small; Nesterov's extrapolation of u between steps, not in the published algorithm, has the same fixed point
and reaches within 30 steps what takes hundreds without it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from inversionbench.core.errors import UserError

SAFETY = 0.9  # 1/tau is at most this share of 1 / (largest eigenvalue of G); the dynamics are stable below twice that
PROBE = 12  # side of the code on which that eigenvalue is found


class SparseCode(nn.Module):
    """Takes the place of a convolution of that shape. In training the code is a fixed feature: no gradient passes, and
    the dictionary moves by `eta` towards a smaller residual (0: it stays as drawn). In evaluation mode gradients
    run through all the iterations, for attackers who know the weights."""

    probe: Tensor
    largest: Tensor

    def __init__(self, like: nn.Conv2d, threshold: float, tau: float, iterations: int, eta: float):
        super().__init__()
        if like.groups != 1 or like.dilation != (1, 1) or isinstance(like.padding, str):
            raise UserError(f"a sparse code needs a convolution without groups, dilation or named padding, got {like}")
        self.stride, self.padding = like.stride, like.padding
        self.threshold, self.tau, self.iterations, self.eta = threshold, tau, iterations, eta
        self.atoms = nn.Parameter(unit(torch.randn(like.weight.shape)), requires_grad=False)  # counted, never descended
        self.register_buffer("probe", torch.rand(1, like.out_channels, PROBE, PROBE))
        self.register_buffer("largest", torch.ones(()))
        self._measure(30)

    def forward(self, x: Tensor) -> Tensor:
        s = standardise(x)
        if not self.training:
            return self.solve(s)
        with torch.no_grad():
            a = self.solve(s)
            if self.eta:
                self._learn(s, a)
        return a

    def solve(self, s: Tensor) -> Tensor:
        """The code of standardised inputs s: (n, c, h, w)."""
        u = ahead = torch.zeros_like(self._analyse(s))
        rate = min(1 / self.tau, SAFETY / float(self.largest))
        for t in range(self.iterations):
            a = F.relu(ahead - self.threshold)
            before, u = u, ahead + rate * (self._analyse(s - self.rebuild(a, s)) - ahead + a)
            ahead = u + t / (t + 3) * (u - before)
        return F.relu(u - self.threshold)

    def rebuild(self, a: Tensor, like: Tensor) -> Tensor:
        """Phi(a), of the shape of `like`: the adjoint of the strided convolution."""
        spare = [
            side - (code - 1) * stride + 2 * pad - kernel
            for side, code, stride, pad, kernel in zip(
                like.shape[2:], a.shape[2:], self.stride, self.padding, self.atoms.shape[2:]
            )
        ]
        return F.conv_transpose2d(a, self.atoms, None, self.stride, self.padding, spare)

    def objective(self, s: Tensor, a: Tensor) -> Tensor:
        """What is minimised, for each input: (n,)."""
        return (s - self.rebuild(a, s)).square().flatten(1).sum(1) / 2 + self.threshold * a.flatten(1).sum(1)

    def flops(self, inputs: tuple[Tensor, ...], out: Tensor) -> int:
        """Of one pass: a convolution and a transposed one in each iteration, two for a multiplication and its sum."""
        return self.iterations * 2 * 2 * out.numel() * self.atoms[0].numel()

    def _analyse(self, s: Tensor) -> Tensor:
        return F.conv2d(s, self.atoms, None, self.stride, self.padding)

    def _learn(self, s: Tensor, a: Tensor) -> None:
        """Phi <- Phi + eta sum(a patch(residual)) / sum(a^2), atom by atom, then unit norm. The denominator, not in the
        published rule, makes a step independent of how often an atom is active."""
        moves = conv2d_weight(s - self.rebuild(a, s), self.atoms.shape, a, self.stride, self.padding)
        activity = a.square().sum(dim=(0, 2, 3))
        scale = (activity + activity.mean() + 1e-12).view(-1, 1, 1, 1)
        self.atoms.copy_(unit(self.atoms + self.eta * moves / scale))
        self._measure(1)

    @torch.no_grad()
    def _measure(self, steps: int) -> None:
        """Power iterations for the largest eigenvalue of G, going on from where the last ones ended."""
        v = self.probe
        side = [(PROBE - 1) * s - 2 * p + k for s, p, k in zip(self.stride, self.padding, self.atoms.shape[2:])]
        like = v.new_empty(1, self.atoms.shape[1], *side)
        for _ in range(steps):
            v = self._analyse(self.rebuild(v / v.norm(), like))
        self.probe.copy_(v)
        self.largest.copy_(v.norm())


class DenseCode(nn.Module):
    """The control: the same standardisation, a trained convolution and a ReLU. After a pass in training, `taken()` is
    the mean of the code, which a penalty on it keeps small."""

    def __init__(self, like: nn.Conv2d):
        super().__init__()
        self.conv = like
        self.mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.conv(standardise(x)))
        if self.training:
            self.mean = a.mean()
        return a

    def taken(self) -> Tensor:
        """Handed out once, so that no graph stays with the network."""
        mean, self.mean = self.mean, None
        assert mean is not None
        return mean


def standardise(x: Tensor) -> Tensor:
    """Mean 0, variance 1 for each of x: (n, c, h, w); a constant image becomes 0."""
    centred = x - x.mean(dim=(1, 2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-6).sqrt()


def unit(atoms: Tensor) -> Tensor:
    return atoms / atoms.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
