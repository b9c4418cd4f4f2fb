"""An embedding of the attacker's own: a classifier of public people, of which attacks use the penultimate features.

Survey 3.2, a part of C2FMI: Ye, Luo, Naseem et al., "C2FMI: Corse-to-Fine Black-box Model Inversion Attack", IEEE
TDSC 2023, where it is a MobileFaceNet of 10,575 public identities. It knows nothing of any target and is trained once
for each public data set, which must say who is in its images. What is loaded is no generator but an `Embedder`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.device import device
from inversionbench.core.errors import UserError
from inversionbench.core.prior import PriorRecipe
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole
from inversionbench.core.recipe import Recipe
from inversionbench.models.base import trace
from inversionbench.models.classifiers import build, load
from inversionbench.models.names import check_model
from inversionbench.priors._quality import doubts
from inversionbench.training.evaluators import plain_state
from inversionbench.training.loop import fit
from inversionbench.training.verifier import who

if TYPE_CHECKING:
    from pathlib import Path

    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part


@dataclass(frozen=True)
class Embedder:
    """A frozen classifier of public people."""

    net: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (n, m) of images (n, c, h, w) in [0, 1]; differentiable."""
        features = trace(self.net, x).features
        if features is None:
            raise UserError("embedder.model: this classifier reports no features; take cnn, resnet or plain")
        return features


@dataclass(frozen=True)
class EmbedderRecipe(PriorRecipe):
    """model: {"name": one of models/names.py, its options}. The rest as in `core.recipe.Recipe`."""

    id: ClassVar[str] = "embedder"
    budget: ClassVar[tuple[str, ...]] = ("epochs",)

    model: dict[str, Any] = field(default_factory=lambda: {"name": "resnet"})
    epochs: Count = 20
    batch: Count = 64
    optimiser: Literal["sgd", "adam", "adamw"] = "adamw"
    rate: Positive = 2e-3
    weight_decay: NonNegative = 5e-4
    schedule: Literal["constant", "one_cycle", "cosine", "step"] = "one_cycle"
    flip: bool = True
    shift: Whole = 2

    def __post_init__(self) -> None:
        check_model(self.model, "embedder.model")

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            epochs=self.epochs, batch=self.batch, optimiser=self.optimiser, rate=self.rate,
            weight_decay=self.weight_decay, schedule=self.schedule, flip=self.flip, shift=self.shift,
        )  # fmt: skip

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Any = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        """Train on all public images. See `PriorRecipe.train`."""
        y = who(public)
        if isinstance(y, str):
            raise UserError(f"embedder: {y}")
        x, shape, people = torch.from_numpy(np.array(public.x)), tuple(public.x.shape[1:]), int(y.max()) + 1
        where = device()
        net = fit(lambda: build(self.model, shape, people), x.to(where), y.to(where), people, self.recipe, rng=rng,
                  progress=progress, description=self.id)  # fmt: skip
        facts = {"people": people, "warnings": doubts(len(x))}
        return {"model": dict(self.model), "shape": list(shape), "people": people, "state": plain_state(net),
                "facts": facts}  # fmt: skip

    def load(self, state: dict[str, Any]) -> Embedder:
        return Embedder(load(state["model"], tuple(state["shape"]), state["people"], state["state"]).to(device()))
