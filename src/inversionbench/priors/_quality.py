"""How good a generator's samples are: a Frechet distance on features that need no training and no weights.

The features are means and deviations, over a 4 x 4 grid, of the responses of fixed random filter banks at
three scales (rectified, two layers), reduced to the leading principal components of the real images. The
number orders states of one generator and generators of one data set; it is not comparable with FID on
Inception features, nor between data sets, and is named `fid_like` for that reason. It is divided by the total
variance of the real images' features. Beside it stand, as its scale, what other and blurred real images score.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.prior import FEWEST
from inversionbench.metrics.fid import frechet

FILTERS = 24
COMPONENTS = 64


def doubts(trained: int, held: int | None = None, stops: bool = False) -> list[str]:
    """What is doubtful in a prior that `trained` public images taught and `held` others measured; stops: whether the
    measurement chose the state that was kept. n images span n - 1 components at most.

    >>> doubts(900, 100), doubts(63)
    ([], ['63 public images are few to learn from (fewer than 100)'])
    """
    out = [f"{trained} public images are few to learn from (fewer than {FEWEST})"] if trained < FEWEST else []
    if held is not None and held <= COMPONENTS:
        out.append(f"{held} held-out public images are too few for the {COMPONENTS} components of fid_like: "
                   + ("the stopping rule may have kept a poor state" if stops else "it says little"))
    return out


def blurred(x: Tensor) -> Tensor:
    """3x3 mean, edges repeated."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


@dataclass(frozen=True)
class FrechetProxy:
    """Fixed features of one set of real images, and the distance of other images to it."""

    banks: tuple[tuple[Tensor, Tensor], ...]
    mean: Tensor
    basis: Tensor
    real: Tensor

    @classmethod
    def of(cls, real: Tensor, seed: int = 0) -> FrechetProxy:
        """real: held-out images (n, channels, height, width) in [0, 1], n > 64."""
        rng = torch.Generator().manual_seed(seed)
        channels = real.shape[1]
        banks = tuple(
            (
                torch.randn(FILTERS, channels, 3, 3, generator=rng) / (9 * channels) ** 0.5,
                torch.randn(FILTERS, FILTERS, 3, 3, generator=rng) / (9 * FILTERS) ** 0.5,
            )
            for _ in range(3)
        )
        raw = _responses(real, banks)
        mean = raw.mean(0)
        scale = (raw - mean).std(0).clamp_min(1e-6)
        _, _, v = torch.linalg.svd((raw - mean) / scale, full_matrices=False)
        basis = v[: min(COMPONENTS, len(v))].T / scale[:, None]
        return cls(banks, mean, basis, (raw - mean) @ basis)

    def features(self, x: Tensor) -> Tensor:
        return (_responses(x, self.banks) - self.mean) @ self.basis

    def distance(self, x: Tensor) -> float:
        """`fid_like` of images x: (n, channels, height, width) in [0, 1]; 0 = indistinguishable, 1 = as far
        as the total variance of the real images."""
        gap = frechet(self.real, self.features(x))
        assert isinstance(gap, float)
        return gap / float(self.real.var(0).sum())


@torch.no_grad()
def _responses(x: Tensor, banks: tuple[tuple[Tensor, Tensor], ...]) -> Tensor:
    out = []
    for part in x.split(256):
        h = part * 2 - 1
        rows = [F.adaptive_avg_pool2d(h, 8).flatten(1)]
        for first, second in banks:
            a = F.relu(F.conv2d(h, first, padding=1))
            b = F.relu(F.conv2d(a, second, padding=1))
            for r in (a, b):
                m = F.adaptive_avg_pool2d(r, 4)
                rows += [m.flatten(1), (F.adaptive_avg_pool2d(r * r, 4) - m * m).clamp_min(0).sqrt().flatten(1)]
            h = F.avg_pool2d(h, 2)
        out.append(torch.cat(rows, 1))
    return torch.cat(out)
