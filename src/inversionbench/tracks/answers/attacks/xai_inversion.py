"""Explanations for model inversion: from a prediction and its explanation back to the input.

Survey 3.4. Zhao, Zhang, Xiao, Lim, "Exploiting Explanations for Model Inversion Attacks", ICCV 2021.

An inversion network M (`_networks`) learns (scores, explanation) -> image, by the mean squared error of pixels, from
public images whose answers and explanations the service gives; one pass of it turns what a victim got into an image.

AN-EX  the service explains its answers: one map of the predicted class, or maps of all classes
AN-S   it does not: attention transfer. The attacker trains a surrogate that explains itself on public images under the
       service's labels, a network from scores to the surrogate's explanations, and M on what that network makes of
       scores; the victims' scores are all he needs. With form `prediction` he uses the scores alone, the baseline.

kind: of explanation, see `models.explain`. form: of M. Deviations: the parts of attention transfer are trained one
after the other, not jointly; log-scores instead of scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.device import device
from inversionbench.core.ranges import Count, Positive
from inversionbench.core.recipe import Recipe
from inversionbench.models.classifiers import build, freeze
from inversionbench.models.explain import explain
from inversionbench.models.inverse import log_scores
from inversionbench.tracks.answers.attacks._networks import network, packed
from inversionbench.training.evaluators import outputs
from inversionbench.training.inverse import fit_inverse
from inversionbench.training.loop import fit

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle

Maps = tuple[Tensor, Tensor]  # of the public images, of the victims


@dataclass(frozen=True)
class XaiInversion(Attack):
    """pairs: most public images; epochs, rate, width: of the inversion network; surrogate: epochs of the attacker's own
    classifier in attention transfer."""

    id: ClassVar[str] = "xai_inversion"
    level: ClassVar[tuple[str, ...]] = ("AN-EX", "AN-S")
    needs: ClassVar[str] = "explanations"
    budget: ClassVar[tuple[str, ...]] = ("pairs", "epochs")

    access: Literal["AN-EX", "AN-S"] = "AN-EX"
    kind: Literal["gradient", "gradient_x_input", "gradcam", "lrp"] = "gradient"
    form: Literal["prediction", "flatten", "unet", "flatten_unet"] = "flatten_unet"
    pairs: Count = 5000
    epochs: Count = 12
    rate: Positive = 2e-3
    width: Count = 16
    surrogate: Count = 8

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        rows = torch.randperm(len(knowledge.public), generator=rng)[: self.pairs]
        images = knowledge.public.images(rows.numpy())
        scores, victims = oracle.scores(images, phase="train"), oracle.observe()
        maps: Maps | None = None
        if self.form != "prediction":
            maps = self.given(oracle, images) if self.access == "AN-EX" else self.transferred(
                scores, images, victims, rng)  # fmt: skip
        known, asked = maps if maps else (None, None)
        size = tuple(known.shape[1:]) if known is not None else (0, 0, 0)
        shape: tuple[int, int, int] = tuple(images.shape[1:])  # type: ignore[assignment]
        net, facts = fit_inverse(
            packed(scores, known), images, rng, self.recipe,
            lambda: network(self.form, scores.shape[1], size, shape, self.width),
        )  # fmt: skip
        return Reconstruction(
            outputs(net, packed(victims, asked)), victims.argmax(1), notes={**facts, "adaptive": True}
        )

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.epochs, 64, "adam", self.rate, 0.0)

    def given(self, oracle: Oracle, images: Tensor) -> Maps:
        """The service's explanations of public images, and those that it gave the victims."""
        return oracle.explain(images, kind=self.kind, phase="train"), oracle.observe(kind=self.kind)

    def transferred(self, scores: Tensor, images: Tensor, victims: Tensor, rng: torch.Generator) -> Maps:
        """What a network makes of scores that learnt the explanations of the attacker's own classifier from them."""
        x, y = images.to(device()), scores.argmax(1).to(device())
        classes, shape = scores.shape[1], tuple(images.shape[1:])
        own = freeze(fit(lambda: build({"name": "cnn", "width": self.width}, shape, classes), x, y, classes,
                         Recipe(self.surrogate, 64), rng=rng))  # fmt: skip
        parts = zip(x.split(256), y.split(256))
        maps = torch.cat([explain(own, part, self.kind, label[:, None])[:, 0].cpu() for part, label in parts])
        net, _ = fit_inverse(log_scores(scores), (maps + 1) / 2, rng, self.recipe, width=self.width)
        known, asked = (2 * outputs(net, log_scores(p)) - 1 for p in (scores, victims))
        return known, asked
