"""The orthonormal cosine transform (DCT-II) and its inverse by FFT, differentiable, in the precision of its input.

    F_k = c_k sum_n G_n cos(pi (2 n + 1) k / (2 N)),   c_0 = sqrt(1 / N),  c_k = sqrt(2 / N)

so that |F| = |G|. The inverse is the transpose.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dct(g: Tensor) -> Tensor:
    """Along the last axis.

    >>> dct(torch.ones(4))
    tensor([2., 0., 0., 0.])
    """
    n = g.shape[-1]
    mixed = torch.cat([g[..., ::2], g[..., 1::2].flip(-1)], dim=-1)
    spectrum = torch.fft.fft(mixed) * _twiddle(n, g)
    return spectrum.real * _scale(n, g)


def idct(f: Tensor) -> Tensor:
    """The inverse of `dct`, along the last axis."""
    n = f.shape[-1]
    f = f / _scale(n, f)
    back = torch.cat([torch.zeros_like(f[..., :1]), f[..., 1:].flip(-1)], dim=-1)
    mixed = torch.fft.ifft(torch.complex(f, -back) / _twiddle(n, f)).real
    half = (n + 1) // 2
    out = torch.empty_like(mixed)
    out[..., ::2] = mixed[..., :half]
    out[..., 1::2] = mixed[..., half:].flip(-1)
    return out


def _twiddle(n: int, like: Tensor) -> Tensor:
    """exp(-i pi k / (2 n)), k = 0 ... n - 1."""
    angle = -math.pi / (2 * n) * torch.arange(n, dtype=like.dtype, device=like.device)
    return torch.polar(torch.ones_like(angle), angle)


def _scale(n: int, like: Tensor) -> Tensor:
    scale = torch.full((n,), math.sqrt(2 / n), dtype=like.dtype, device=like.device)
    scale[0] = math.sqrt(1 / n)
    return scale
