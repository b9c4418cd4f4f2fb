"""A secret rotation of the states that a client sends, which the server half takes back.

No paper: the form of protection that needs no training and costs no accuracy, to see what it withstands.

    H8  sent = z Q, Q orthogonal, drawn once per target and kept from the attacker
    H3  the server half begins with sent -> sent Q'

strength: share of the coordinates that take part, the first ones; Q is the identity on the others. Against somebody on
the wire: a server that is the attacker holds Q. Q itself is not given away by the client half, but by pairs of public
sentences and what the client sends of them, as soon as their states span the space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import Share, Whole
from inversionbench.core.seeds import draw_seed

if TYPE_CHECKING:
    from inversionbench.core.defense import Sending
    from inversionbench.data.base import Dataset
    from inversionbench.models.split import Halves


@dataclass(frozen=True)
class SecretRotation(Defense):
    """strength: share of the coordinates. key: the secret, drawn by `prepare`."""

    id: ClassVar[str] = "secret_rotation"
    hooks: ClassVar[frozenset[str]] = frozenset({"build_model", "release_features"})
    inputs: ClassVar[tuple[str, ...]] = ("text",)

    strength: Share = 0.0
    key: Whole = 0

    def prepare(
        self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator
    ) -> SecretRotation:
        return replace(self, key=draw_seed(rng) % 10**12)

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        halves: Halves = factory()  # type: ignore[assignment]
        if self.strength:
            halves.server.insert(0, Back(self))
        return halves

    def release_features(self, z: Tensor, ctx: Sending) -> Tensor:
        return z @ self.rotation(z.shape[-1]).to(z) if self.strength else z

    def rotation(self, width: int) -> Tensor:
        """Q (width, width)."""
        q, part = torch.eye(width), round(self.strength * width)
        drawn = torch.randn(part, part, generator=torch.Generator().manual_seed(self.key))
        q[:part, :part] = torch.linalg.qr(drawn)[0]
        return q

    def public_knowledge(self) -> dict[str, Any]:
        return {"rotated": self.strength}


class Back(nn.Module):
    """sent (..., width) -> sent Q'."""

    def __init__(self, defense: SecretRotation):
        super().__init__()
        self.defense = defense

    def forward(self, sent: Tensor) -> Tensor:
        return sent @ self.defense.rotation(sent.shape[-1]).T.to(sent)
