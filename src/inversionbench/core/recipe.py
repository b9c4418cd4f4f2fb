"""How a network is trained, as plain values that can be checked without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, NonNegative, Positive, PositiveShare, Share, ShareBelowOne, Whole
from inversionbench.core.settings import parse


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    optimiser: sgd (with `momentum`) | adam | adamw. rate: the highest learning rate. schedule, over all
    steps: constant | one_cycle (rise over the first 30 %, cosine to nearly 0) | cosine | step (x 0.1 at 75
    and 90 %). clip: largest gradient norm, 0 = no clipping. Augmentation of images: flip with probability
    1/2; shift by up to `shift` pixels (edges repeated); noise: standard deviation drawn from [0, noise] in
    70 % of the images; blur: 3x3 mean in that share of the images.

    clients > 0: trained by federated averaging (training/global_model.py), where the private images are dealt
    to so many clients, `share` of whom take part in each of `rounds`; epochs, batch, optimiser and schedule
    are then those of a client's local training in one round. rounds 0 is the untrained global model.
    """

    epochs: Whole = 10
    batch: Count = 64
    optimiser: Literal["sgd", "adam", "adamw"] = "adamw"
    rate: Positive = 2e-3
    weight_decay: NonNegative = 5e-4
    momentum: ShareBelowOne = 0.9
    schedule: Literal["constant", "one_cycle", "cosine", "step"] = "one_cycle"
    clip: NonNegative = 0.0
    flip: bool = False
    shift: Whole = 0
    noise: NonNegative = 0.0
    blur: Share = 0.0
    clients: Whole = 0
    rounds: Whole = 0
    share: PositiveShare = 1.0

    def __post_init__(self) -> None:
        if self.rounds and not self.clients:
            raise UserError(f"rounds: {self.rounds} rounds need clients; set clients, or leave rounds out")


def check_recipe(given: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from plain values; unknown names and values out of range are a `UserError` that says where."""
    return parse(Recipe, given, where)
