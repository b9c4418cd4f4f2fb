"""Defenses that use other images of the client than those of the batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from inversionbench.core.defense import Defense

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.data.base import Dataset

    Own = TypeVar("Own", bound=Defense)


@dataclass(frozen=True)
class LocalDefense(Defense):
    """Keeps what its client holds: `images` (n, c, h, w), `targets` (n,), and the number of classes."""

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        return with_notes(self, classes=data.classes)

    def for_client(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Defense:
        if self.strength == 0:
            return self
        return with_notes(self, images=x, targets=y)

    def local(self) -> tuple[Tensor, Tensor, int]:
        """(images, targets, classes); `ValueError` outside a client."""
        held = self.__dict__
        missing = [name for name in ("images", "targets", "classes") if name not in held]
        if missing:
            raise ValueError(f"{self.id}: no {', '.join(missing)}: call prepare() and for_client() first")
        return held["images"], held["targets"], held["classes"]


def with_notes(defense: Own, **notes: object) -> Own:
    """A copy that carries what is no parameter (a client's images, a trained teacher)."""
    own = copy.copy(defense)
    own.__dict__.update(notes)
    return own
