"""pFGD, pruned frequency-based gradient defense (survey 4.2; Palihawadana, Wiratunga, Kalutarage, Wijekoon,
ESORICS 2023 workshops): reconstruction.

Every tensor of the update is taken to the frequency domain, its coefficients are pruned there, and the server
transforms back:

    F = DCT(G)   orthonormal, so |F| = |G|; a convolution as a matrix (out, in * kh * kw) along both axes,
                 everything else as one vector
    keep the ceil((1 - strength) d) coefficients of largest magnitude (keep = "magnitude") or of lowest frequency
    send them; the server reads G' = DCT^-1(F')

The transform is public and keeps distances, so all protection comes from the pruning; what changes is which
functionals of G are lost. No entry of G arrives exactly, which spoils closed-form ratios of a linear layer and labels
read from zeros. `project` is what an attacker applies to its own update to compare only what was sent.

strength: the share of coefficients set to 0 (0: off). The layout and the magnitude rule are the natural reading of
the abstract, not the authors' text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense

if TYPE_CHECKING:
    from torch import Tensor

KEEP = ("magnitude", "low")


@dataclass(frozen=True)
class Pfgd(Defense):
    """keep: "magnitude", or "low" for the lowest frequencies (the sum of both indices for a matrix)."""

    id = "pfgd"
    hooks = frozenset({"client_update"})
    federated = True
    effect = ("cos_sent_true", "lower", 0.999)

    keep: str = "magnitude"

    def __post_init__(self) -> None:
        if not 0 <= self.strength < 1:
            raise ValueError(f"pfgd: strength is a share of coefficients in [0, 1), got {self.strength}")
        if self.keep not in KEEP:
            raise ValueError(f"pfgd: keep is one of {', '.join(KEEP)}, got '{self.keep}'")

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        if self.strength == 0:
            return update
        return {name: backward(self.prune(forward(g)), g.shape) for name, g in update.items()}

    def prune(self, f: Tensor) -> Tensor:
        """Coefficients of one tensor with all but the kept ones set to 0."""
        return f * self.mask(f)

    def project(self, g: Tensor, seen: Tensor) -> Tensor:
        """g with the coefficients only that were sent in `seen` (both of one shape); differentiable in g."""
        return backward(forward(g) * self.mask(forward(seen)), g.shape)

    def mask(self, f: Tensor) -> Tensor:
        """True for the coefficients of one tensor that are kept."""
        import torch

        from inversionbench.defenses.gradient_pruning._ranks import band

        count = self._kept(f.numel())
        if self.keep == "magnitude":
            return band(f, 0, count)
        order = torch.stack(torch.meshgrid(*(torch.arange(n) / n for n in f.shape), indexing="ij")).sum(dim=0)
        mask = torch.zeros(f.numel(), dtype=torch.bool, device=f.device)
        mask[torch.argsort(order.flatten(), stable=True)[:count]] = True
        return mask.view_as(f)

    def _kept(self, entries: int) -> int:
        return math.ceil(round((1 - self.strength) * entries, 6))

    def bytes_sent(self, update: dict[str, Tensor]) -> int:
        """Coefficients of 4 bytes, and their places where these depend on the values."""
        from inversionbench.defenses.gradient_pruning._ranks import sparse_bytes

        if self.strength == 0:
            return super().bytes_sent(update)
        sizes = [(self._kept(t.numel()), t.numel()) for t in update.values()]
        return sum(sparse_bytes(k, n) if self.keep == "magnitude" else 4 * k for k, n in sizes)

    def public_knowledge(self) -> dict[str, Any]:
        """The rule; which coefficients were sent is visible in every upload (`project`)."""
        return {"transform": "dct", "sparsity": self.strength, "keep": self.keep, "support": "non-zero coefficients"}


def forward(g: Tensor) -> Tensor:
    """The coefficients of one tensor: a matrix (out, rest) for convolutions, a vector for all else."""
    from inversionbench.defenses.gradient_pruning._dct import dct

    if g.ndim < 3:
        return dct(g.flatten())
    return dct(dct(g.flatten(1)).T).T


def spectra(g: Tensor) -> Tensor:
    """`forward` of each tensor of a stack g (n, *shape): (n, values) or (n, out, rest)."""
    from inversionbench.defenses.gradient_pruning._dct import dct

    if g.ndim < 4:
        return dct(g.flatten(1))
    return dct(dct(g.flatten(2)).transpose(1, 2)).transpose(1, 2)


def backward(f: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor of this shape that has these coefficients."""
    from inversionbench.defenses.gradient_pruning._dct import idct

    return (idct(f) if f.ndim == 1 else idct(idct(f.T).T)).reshape(shape)
