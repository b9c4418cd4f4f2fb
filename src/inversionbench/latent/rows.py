"""Rows of an attack: class x restart, class by class; and images of a prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inversionbench.core.prior import Prior
from inversionbench.latent.search import images_per_chunk

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle


def rows(targets: Tensor, restarts: int) -> Tensor:
    """The class of each row.

    >>> rows(torch.tensor([4, 7]), 2)
    tensor([4, 4, 7, 7])
    """
    if restarts < 1:
        raise ValueError(f"restarts: expected at least 1, got {restarts}")
    return targets.repeat_interleave(restarts)


def passes_per_answer(oracle: Oracle, answers: int) -> int:
    """What has been asked of the target so far, queries and passes, for each answer: where a curve stands."""
    return -(-(oracle.ledger.queries + oracle.ledger.passes) // answers)


def device_of(prior: Prior) -> torch.device:
    """Where a prior's networks are."""
    return next(prior.generator.parameters()).device


@torch.no_grad()
def generate(prior: Prior, z: Tensor) -> Tensor:
    """Images (n, c, h, w) of latents (n, z_dim), on the CPU."""
    where, block = device_of(prior), images_per_chunk(getattr(prior.generator, "resolution", 1))
    return torch.cat([prior.generator(part.to(where)).cpu() for part in z.split(block)])


def first_of_class(classes: int, each: int, keep: int) -> Tensor:
    """The first `keep` of the `each` rows of every class.

    >>> first_of_class(2, 3, 2)
    tensor([0, 1, 3, 4])
    """
    return torch.arange(classes * each).view(classes, each)[:, :keep].flatten()


def best_of_class(score: Tensor, restarts: int) -> Tensor:
    """For each class the row of its highest score; score: (classes * restarts,) in the order of `rows`.

    >>> best_of_class(torch.tensor([0.1, 0.9, 0.8, 0.2]), 2)
    tensor([1, 2])
    """
    groups = score.view(-1, restarts)
    return groups.argmax(1) + restarts * torch.arange(len(groups))
