"""Students: copies of the target, taught by its answers on public images alone.

Survey 3.1 as listed (LOMMA), used by white-box generative attacks. Nguyen, Chandrasegaran, Abdollahzadeh,
Cheung, "Re-thinking Model Inversion Attacks Against Deep Neural Networks", CVPR 2023: an attack that must
convince several models overfits none of them.

Each student minimises KL(softmax(T(x) / tau) || softmax(S(x) / tau)) over public images x. It never sees a
private image, and knows the private classes less well than the target: intended.

Parameters as published: three EfficientNets, temperature 1, 20 epochs of SGD 0.01, momentum 0.9, weight decay
1e-4, batch 64. The teacher is asked once for each public image (one pass each), before augmentation; shift
and flip, where set, keep its answer. Deviations: at temperatures other than 1 the loss is not divided by
tau^2; a tenth of the public images (at most 1000) only measures agreement with the target.

What is loaded is no generator but `Students`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from inversionbench.core.device import device
from inversionbench.core.prior import PriorRecipe
from inversionbench.core.ranges import Count, NonNegative, Positive, ShareBelowOne, Whole
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import spawn
from inversionbench.models.classifiers import load
from inversionbench.models.names import check_model
from inversionbench.priors._distil import agreement, answers, distil
from inversionbench.priors._quality import doubts
from inversionbench.priors.dcgan import hold_out

if TYPE_CHECKING:
    from pathlib import Path

    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Students:
    """Trained students, frozen: classifiers of images in [0, 1]."""

    nets: tuple[nn.Module, ...]


@dataclass(frozen=True)
class StudentsRecipe(PriorRecipe):
    """models: {"name": one of models/names.py, its options} for each student. The rest as in
    `core.recipe.Recipe`."""

    id: ClassVar[str] = "students"
    target_aware: ClassVar[bool] = True
    level: ClassVar[str] = "WB"
    base: ClassVar[None] = None
    budget: ClassVar[tuple[str, ...]] = ("epochs",)

    models: tuple[dict[str, Any], ...] = (
        {"name": "efficientnet_b0"}, {"name": "efficientnet_b1"}, {"name": "efficientnet_b2"},
    )
    temperature: Positive = 1.0
    epochs: Count = 20
    batch: Count = 64
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    rate: Positive = 0.01
    momentum: ShareBelowOne = 0.9
    weight_decay: NonNegative = 1e-4
    schedule: Literal["constant", "one_cycle", "cosine", "step"] = "constant"
    flip: bool = False
    shift: Whole = 0

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models: expected at least one student")
        for model in self.models:
            check_model(model, "students.models")

    @property
    def recipe(self) -> Recipe:
        """How each student is trained."""
        return Recipe(
            epochs=self.epochs, batch=self.batch, optimiser=self.optimiser, rate=self.rate, momentum=self.momentum,
            weight_decay=self.weight_decay, schedule=self.schedule, flip=self.flip, shift=self.shift,
        )

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Oracle | None = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        """Teach every student. See `PriorRecipe.train`."""
        from inversionbench.training.evaluators import plain_state

        assert target is not None
        teacher = target.module().to(device())
        teacher.phase = "train"
        held, rest = hold_out(public, rng)
        seen, soft = answers(teacher, held), answers(teacher, rest)
        state: dict[str, Any] = {"shape": list(rest.shape[1:]), "classes": soft.shape[1], "students": []}
        shares = []
        for i, model in enumerate(self.models):
            net = distil(model, rest, soft, self.recipe, self.temperature, spawn(rng), progress, f"student {i + 1}")
            shares.append(agreement(net, held, seen))
            state["students"].append({"model": dict(model), "state": plain_state(net)})
        return {**state, "facts": {"agreement": shares, "warnings": doubts(len(rest))}}

    def load(self, state: dict[str, Any]) -> Students:
        shape, classes = tuple(state["shape"]), state["classes"]
        nets = [load(s["model"], shape, classes, s["state"]).to(device()) for s in state["students"]]
        return Students(tuple(nets))
