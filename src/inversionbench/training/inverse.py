"""Training an inverse network on pairs of release and public image, and seeing when it has learnt nothing.

A network that gives one image for every input has collapsed: it says nothing of a defense. The spread of what it makes
of pairs that it was not shown, as a share of the spread of their images, is its `variation`; below `CONSTANT` it is
trained again from another seed, and if it stays so after all tries, the facts and a warning of the record say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import Defense
from inversionbench.core.device import device
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import draw_seed, spawn
from inversionbench.models.inverse import Inverse
from inversionbench.training.evaluators import outputs
from inversionbench.training.loop import Regression, fit

CONSTANT = 1e-3
TRIES = 3


def fit_inverse(
    seen: Tensor, images: Tensor, rng: torch.Generator, recipe: Recipe,
    factory: Callable[[], nn.Module] | None = None, lesson: Defense | None = None, width: int = 16,
) -> tuple[nn.Module, dict[str, Any]]:
    """A network from releases to images, in evaluation mode, and the facts of its training for a record.

    seen: (n, ...), what was released of images (n, channels, height, width) in [0, 1], n > 9; of every tenth pair
    nothing is learnt. factory: makes another network than `Inverse` of `width` channels. lesson: another loss than
    the squared error of pixels, as a defense's hook H4 (logits: what the network makes, y: images).
    """
    shape: tuple[int, int, int] = tuple(images.shape[1:])  # type: ignore[assignment]
    make = factory or (lambda: Inverse(tuple(seen.shape[1:]), shape, width))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(draw_seed(rng)))
    apart, rest = order.tensor_split([len(order) // 10])
    x, y = seen[rest].to(device()), images[rest].to(device())

    def train(rng: torch.Generator) -> nn.Module:
        return fit(make, x, y, 0, recipe, lesson or Regression(), rng, description="inverse network")

    net, facts = until_it_varies(train, seen[apart], images[apart], rng)
    gap = (outputs(net, seen[apart]) - images[apart]).square().mean()
    guess = (images[rest].mean(0) - images[apart]).square().mean()
    return net, {**facts, "inverse_mse": float(gap), "inverse_mse_of_mean_image": float(guess)}


def until_it_varies(
    train: Callable[[torch.Generator], nn.Module], seen: Tensor, images: Tensor, rng: torch.Generator,
) -> tuple[nn.Module, dict[str, Any]]:
    """What `train` makes with the first of `TRIES` seeds that does not collapse, and the facts. seen, images: pairs
    that it is not shown."""
    tries, varies = 0, 0.0
    while tries < TRIES and varies < CONSTANT:
        net = train(spawn(rng))
        tries, varies = tries + 1, variation(outputs(net, seen), images)
    facts: dict[str, Any] = {"inverse_variation": varies, "inverse_tries": tries, "collapsed": varies < CONSTANT}
    if facts["collapsed"]:
        facts["warnings"] = [f"the inverse network gives one image for every input, from {TRIES} seeds: "
                             "this row says nothing of the defense"]  # fmt: skip
    return net, facts


def variation(made: Tensor, images: Tensor) -> float:
    """Variance between images, averaged over pixels, of what was made (n, ...) as a share of that of images (n, ...).

    >>> x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> variation(x, x), variation(x[:1].expand_as(x), x)
    (1.0, 0.0)
    """
    return float(made.var(0).mean() / images.var(0).mean().clamp_min(1e-12))
