"""What a target-aware prior takes from its target: answers on public images, and copies taught by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.defense import Defense, Step
from inversionbench.core.device import device
from inversionbench.core.recipe import Recipe
from inversionbench.models.classifiers import build
from inversionbench.training.loop import as_float, fit

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress
    from inversionbench.oracle.classifier import WhiteBox


@torch.no_grad()
def answers(target: WhiteBox, x: Tensor, block: int = 256) -> Tensor:
    """softmax(T(x)): (n, classes) on the CPU, one pass per image. x: (n, c, h, w), uint8 or in [0, 1]."""
    where = device()
    return torch.cat([target(as_float(part).to(where)).softmax(1).cpu() for part in x.split(block)])


@dataclass(frozen=True)
class Distillation(Defense):
    """KL(t || s) in the training loop's place for a loss; t, s: softmax of logits / temperature, the labels
    y (batch, classes) being the teacher's softmax at temperature 1."""

    temperature: float = 1.0

    def loss(self, ctx: Step) -> Tensor:
        t = (ctx.y.clamp_min(1e-30).log() / self.temperature).softmax(1)
        s = (ctx.logits / self.temperature).log_softmax(1)
        return F.kl_div(s, t, reduction="batchmean")


def distil(
    model: Mapping[str, Any], x: Tensor, soft: Tensor, recipe: Recipe, temperature: float,
    rng: torch.Generator, progress: Progress | None, description: str,
) -> nn.Module:
    """A classifier taught by soft labels (n, classes) of public images x (n, c, h, w), uint8."""
    where, classes = device(), soft.shape[1]
    return fit(
        lambda: build(model, tuple(x.shape[1:]), classes), x.to(where), soft.to(where), classes, recipe,
        Distillation(temperature=temperature), rng, progress, description,
    )


@torch.no_grad()
def agreement(net: nn.Module, x: Tensor, soft: Tensor, block: int = 256) -> float:
    """Share of images x of which the network says what the teacher says; soft: (n, classes)."""
    where = device()
    said = torch.cat([net(as_float(part).to(where)).argmax(1).cpu() for part in x.split(block)])
    return (said == soft.argmax(1)).double().mean().item()
