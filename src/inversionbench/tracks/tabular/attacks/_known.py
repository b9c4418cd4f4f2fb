"""What TabLeak makes of what is public of a defense: what it compares, and which updates are sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from inversionbench.gradients.fully_connected import View


@dataclass(frozen=True)
class Known:
    """match: "plain" nothing; "mask" only the entries that were sent; "known" what `public`, the defense's public
    knowledge, says: that zeros were not sent (pruning), which coefficients were (pFGD), whose updates were added."""

    match: str
    public: Mapping[str, Any]

    @property
    def sums(self) -> Sequence[Sequence[int]] | None:
        """The groups of clients of which only the sum is seen."""
        return self.public.get("groups") if self.match == "known" else None

    def of(self, observed: Sequence[Tensor]) -> tuple[View | None, list[Tensor] | None]:
        """`view` and `keep` of `gradients.fully_connected.Matching`. observed: per layer (clients, in + 1, out)."""
        if self.match == "known" and self.public.get("transform") == "dct":
            return spectra, _sent(spectra(observed), self.public)
        pruned = self.match == "known" and self.public.get("support") == "non-zero entries"
        return None, [s != 0 for s in observed] if pruned or self.match == "mask" else None


def spectra(layers: Sequence[Tensor]) -> list[Tensor]:
    """Coefficients of every weight and bias, each as pFGD takes it, (..., values). layers: (..., in + 1, out)."""
    from inversionbench.defenses.gradient_pruning._dct import dct

    return [dct(part) for g in layers for part in (g[..., :-1, :].mT.flatten(-2), g[..., -1, :])]


def _sent(coefficients: Sequence[Tensor], public: Mapping[str, Any]) -> list[Tensor]:
    """Which of them (clients, values) the rule of the defense has kept."""
    from inversionbench.defenses.gradient_pruning.pfgd import Pfgd

    rule: Callable[[Tensor], Tensor] = Pfgd(strength=public["sparsity"], keep=public["keep"]).mask
    return [torch.stack([rule(row) for row in f]) for f in coefficients]
