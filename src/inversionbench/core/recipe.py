"""How a network is trained, as plain values that can be checked without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from inversionbench.core.errors import UserError, suggest

OPTIMISERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "one_cycle", "cosine", "step")


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

    epochs: int = 10
    batch: int = 64
    optimiser: str = "adamw"
    rate: float = 2e-3
    weight_decay: float = 5e-4
    momentum: float = 0.9
    schedule: str = "one_cycle"
    clip: float = 0.0
    flip: bool = False
    shift: int = 0
    noise: float = 0.0
    blur: float = 0.0
    clients: int = 0
    rounds: int = 0
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise UserError(f"optimiser: unknown '{self.optimiser}': {suggest(self.optimiser, OPTIMISERS)}")
        if self.schedule not in SCHEDULES:
            raise UserError(f"schedule: unknown '{self.schedule}': {suggest(self.schedule, SCHEDULES)}")
        if self.epochs < 0 or self.batch < 1:
            raise UserError(f"expected epochs >= 0 and batch >= 1, got {self.epochs} and {self.batch}")
        if self.clients < 0 or self.rounds < 0 or not 0 < self.share <= 1:
            got = f"{self.clients}, {self.rounds} and {self.share}"
            raise UserError(f"expected clients >= 0, rounds >= 0 and 0 < share <= 1, got {got}")
        if self.rounds and not self.clients:
            raise UserError(f"rounds: {self.rounds} rounds need clients; set clients, or leave rounds out")


def check_recipe(given: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from plain values; unknown names and wrong types are a `UserError` that says where."""
    known = {f.name: f for f in fields(Recipe)}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"{where}: unknown '{name}': {suggest(name, known)}")
        default = known[name].default
        fits = isinstance(value, (int, float)) if isinstance(default, float) else isinstance(value, type(default))
        if not fits or (isinstance(value, bool) and not isinstance(default, bool)):
            raise UserError(f"{where}.{name}: expected {type(default).__name__}, got {value!r}")
    try:
        return Recipe(**given)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
