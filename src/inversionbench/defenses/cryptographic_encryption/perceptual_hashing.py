"""Perceptual hashing: parts of every image are replaced by a picture of their hash, in training and in use.

Survey 4.5. Prakash, Ding, Li, Errapotu, Pei, Pan, "Privacy preserving facial recognition against model inversion
attacks", GLOBECOM 2020; the abstract gives the idea, hash and parts are ours: reconstruction.

    grey image -> grid x grid blocks; of the share `strength` of them, the ones nearest to the middle first:
    phash  block to 32 x 32, DCT-II, the size x size lowest frequencies; bit = coefficient > their median
    ahash  block to size x size; bit = pixel > mean          dhash  block to size x (size + 1); bit = left < right
    the bits, black and white, enlarged to the block, take its place in all channels

The network behind it is trained on such images, and the same step stands in front of it when it is used. strength 0: no
step. It is no secret and needs no key: at most size^2 bits of a block remain, but the hash keeps what is alike alike.

What misleads: the step has no gradient, so a search that follows the gradient through it stands still. An attacker who
knows it lets the gradient pass (`adapt` of GMI), or inverts the network behind it and learns from other people's faces
how to take the hash back (attack `dehash`). Blocks that are not hashed leak as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from inversionbench.core.defense import Defense
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share
from inversionbench.models.hashing import HashedParts


@dataclass(frozen=True)
class PerceptualHashing(Defense):
    """strength: share of the blocks that is hashed. grid: blocks along a side. size: square root of a hash's bits."""

    id: ClassVar[str] = "perceptual_hashing"
    hooks: ClassVar[frozenset[str]] = frozenset({"build_model"})
    inputs: ClassVar[tuple[str, ...]] = ("image",)

    strength: Share = 0.0
    grid: Count = 4
    size: Count = 8
    hash: Literal["phash", "ahash", "dhash"] = "phash"

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model = factory()
        if self.strength == 0:
            return model
        if not isinstance(getattr(model, "first", None), nn.Module):
            raise UserError(f"perceptual_hashing: {type(model).__name__} has no first step to put the hash before")
        model.first = nn.Sequential(HashedParts(self.strength, self.grid, self.size, self.hash), model.first)
        return model

    def public_knowledge(self) -> dict[str, Any]:
        return {"hash": self.hash, "blocks": self.grid, "hashed": self.strength} if self.strength else {}
