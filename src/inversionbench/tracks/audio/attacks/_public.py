"""What an attacker makes of public speakers: their windows, and the components that these vary in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.models.audio import BANDS, HOP, RATE, patches

if TYPE_CHECKING:
    from inversionbench.data.base import Part


def public_windows(public: Part, frames: int, hop: int) -> Tensor:
    """All windows of the public clips, (n, BANDS, frames); clips that are shorter have none."""
    clips = patches(public.tensor(), torch.from_numpy(public.extra["length"].copy()))
    found = [p.unfold(1, frames, hop).movedim(1, 0) for p in clips if p.shape[1] >= frames]
    if not found:
        raise UserError(f"protocol.frames: no public clip has {frames} ({frames * HOP / RATE:g} s): take fewer")
    return torch.cat(found)


@dataclass(frozen=True)
class Components:
    """The first principal components of patches. mean: (BANDS * frames,). scaled: (components, BANDS * frames), each as
    long as its standard deviation."""

    mean: Tensor
    scaled: Tensor
    frames: int

    @classmethod
    def of(cls, public: Part, frames: int, components: int) -> Components:
        """Those of public windows, every quarter of a window."""
        flat = public_windows(public, frames, max(1, frames // 4)).flatten(1).double()
        mean, kept = flat.mean(0), min(components, len(flat) - 1, flat.shape[1])
        centred = flat - mean
        wide = flat.shape[1] > len(flat)  # the smaller of the two matrices of products has the same eigenvalues
        values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
        values, vectors = values[-kept:].clamp_min(1e-12), vectors[:, -kept:]
        axes = vectors.T @ centred if wide else vectors.T * values.sqrt()[:, None]  # each as long as its singular value
        return cls(mean.float(), (axes / len(flat) ** 0.5).float(), frames)

    def draw(self, n: int, spread: float, rng: torch.Generator) -> Tensor:
        """Random coordinates (n, components), in standard deviations."""
        return spread * torch.randn(n, len(self.scaled), generator=rng)

    def patch(self, z: Tensor) -> Tensor:
        """(n, components) -> (n, BANDS, frames) in [0, 1]."""
        return (self.mean + z @ self.scaled).clamp(0, 1).unflatten(1, (BANDS, self.frames))

    def coordinates(self, x: Tensor) -> Tensor:
        """The nearest point's coordinates, (n, components)."""
        return (x.flatten(1) - self.mean) @ self.scaled.T / self.scaled.square().sum(1).clamp_min(1e-12)
