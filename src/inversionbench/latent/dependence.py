"""How dependent two equally long sets are: the normalised HSIC of FedInverse, distance correlation."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_kernel(a: Tensor, sigma: float) -> Tensor:
    """K_ij = exp(-|a_i - a_j|^2 / w) of rows a (s, d): (s, s). w = 2 sigma^2 d, or, where sigma is 0,
    2 m^2 with m the median of the *squared* distances (the released code's heuristic, quirk included)."""
    squared = (a[:, None] - a[None]).square().sum(2)
    if sigma:
        return torch.exp(-squared / (2 * sigma**2 * a.shape[1]))
    off = ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    median = squared.detach()[off].median().clamp_min(1e-12)
    return torch.exp(-squared / (2 * median**2))


def normalised_hsic(a: Tensor, b: Tensor, sigma: float = 0.0, eps: float = 1e-5) -> Tensor:
    """trace(R_K R_L) with R = Kc (Kc + eps s I)^-1 and Kc = K (I - 11^T / s), for rows a, b: (s, d), s > 1.

    Differentiable, in double precision. At image dimension it measures how spread the sets are rather than
    how dependent: minimised with the median heuristic it rewards spread, with a large sigma it rewards
    collapse.

    >>> rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    >>> float(normalised_hsic(torch.ones(8, 4), rows, sigma=1.0))
    0.0
    """
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"expected two sets of the same shape with at least 2 rows, got {a.shape} and {b.shape}")
    s = len(a)
    eye = torch.eye(s, dtype=torch.float64, device=a.device)
    ratios = []
    for rows in (a, b):
        centred = gaussian_kernel(rows.flatten(1).double(), sigma) @ (eye - 1 / s)
        ratios.append(torch.linalg.solve(centred + eps * s * eye, centred, left=False))
    return (ratios[0] * ratios[1].T).sum()


def distance_correlation(x: Tensor, z: Tensor) -> Tensor:
    """Distance correlation (Szekely, Rizzo, Bakirov, Annals of Statistics 2007) of n pairs, x and z (n, ...): in
    [0, 1]; for independent ones it goes to 0 as n grows.

    >>> x = torch.rand(16, 3, generator=torch.Generator().manual_seed(0))
    >>> round(float(distance_correlation(x, 2 * x + 1)), 4)
    1.0
    """

    def centred(v: Tensor) -> Tensor:
        v = v.flatten(1)
        squares = v.square().sum(1)
        d = (squares[:, None] + squares[None] - 2 * v @ v.T).clamp_min(1e-12).sqrt()
        return d - d.mean(0) - d.mean(1, keepdim=True) + d.mean()

    a, b = centred(x), centred(z)
    whole = (a.square().mean() * b.square().mean()).clamp_min(1e-24).sqrt()
    return ((a * b).mean() / whole).clamp_min(1e-12).sqrt()
