"""What a prior is.

A file `priors/<id>.py` defines one frozen dataclass with the class attributes `id` and
`target_aware` (False: trained once per public data set and shared by every target, defended or not; True:
trained again for every target, which it asks at the access level `level`, paying for every pass). `base`
names the shared prior that a target-aware one starts from. Its fields are the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import nn

    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle

FEWEST = 100  # public samples to learn from; of fewer, a batch of 64 shows more than half at every step


@dataclass(frozen=True)
class Prior:
    """A trained prior, frozen, in evaluation mode.

    generator: z (n, z_dim) -> images (n, c, h, w) in [0, 1]. critic: images -> realism score (n,), or None.
    """

    generator: nn.Module
    critic: nn.Module | None
    z_dim: int

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """n latents from N(0, I), shape (n, z_dim)."""
        import torch

        return torch.randn(n, self.z_dim, generator=rng)


@dataclass(frozen=True)
class PriorRecipe:
    """Base of the recipes."""

    id: ClassVar[str]
    target_aware: ClassVar[bool] = False
    level: ClassVar[str] = "WB"
    base: ClassVar[str | None] = None
    budget: ClassVar[tuple[str, ...]] = ()  # as of `core.attack.Attack`
    published: ClassVar[Mapping[str, Any]] = {}

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Oracle | None = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        """Train on public data; returns a state of plain tensors and numbers for `torch.save`.

        target: the oracle of a target-aware prior. base: what `load` of the entry `base` returned. checkpoint: a file
        where a GAN keeps its whole state from time to time, and goes on from it to the same bits if it is there. The
        state holds what `load` needs, and under "facts" plain numbers for people (steps, quality, ...) and "warnings":
        sentences that the records of attacks with this prior repeat.
        """
        raise NotImplementedError

    def load(self, state: dict[str, Any]) -> Any:
        """The trained prior from its state: a `Prior`, or what else the attack is to be given (students, ...)."""
        raise NotImplementedError
