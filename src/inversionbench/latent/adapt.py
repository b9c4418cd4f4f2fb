"""What a search by gradients does that knows a defense: see past the part of it that misleads the gradient.

By what is public of the defense (`Defense.public_knowledge`):

    noise      the noise of a bottleneck is left out
    hash       the gradient passes the hash as if it were not there
    erased     the target sees the image through squares drawn as in training
    triggers   ... through random crops, turns, mirror images and light, which a fixed pattern does not survive

Where none of them is told, the target sees the image itself. The loss is the mean over `draws` views, each a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inversionbench.latent.search import as_is
from inversionbench.latent.views import Views
from inversionbench.models.bottleneck import silence
from inversionbench.models.hashing import HashedParts
from inversionbench.models.operations import erase

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inversionbench.oracle.classifier import WhiteBox

VIEWS = Views()


def knowing(
    target: WhiteBox, told: Mapping[str, Any], draws: int, rng: torch.Generator
) -> Callable[[Tensor], Sequence[Tensor]]:
    """Prepare the attacker's own copy of the target, in place, and return the views through which to search."""
    if "noise" in told:
        silence(target.model)
    for module in target.model.modules():
        if isinstance(module, HashedParts):
            module.passes = True
    if "erased" in told:
        low, high = told["erased"]
        return lambda x: [erase(x, low, high, told["fill"], rng) for _ in range(draws)]
    if "triggers" in told:
        return lambda x: VIEWS.several(x, rng, draws)
    return as_is
