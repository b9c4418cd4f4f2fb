"""The one training loop, and where the eight hooks of a defense act.

    x, y = H1 training_set(x, y)                        once, before anything else        (this file)
    model = H3 build_model(factory)                     architecture or initial weights   (this file)
    for epoch, batch of (x, y):
        x', y' = augment(batch)                         the recipe's own flip, shift, noise, blur
        x', y' = H2 train_transform(x', y')             y' may become soft                (this file)
        logits, hidden = model(x')
        L  = H4 loss(Step)                              logits, hidden, x', y', epoch     (this file)
        g  = dL/dparameters
        g' = H5 gradient(g, Step)                                                         (this file)
        parameters <- optimiser(g')
    payload = H6 client_update(update)                  what a client sends           (federation/client.py)
    mean, view = H7 aggregate(payloads)                 what the server sees          (federation/client.py)
    released = H8 release(logits)                       what a querier sees        (oracle, `release` below)

A defense draws from a generator of its own, so that two strengths of one defense see the same initial
weights and the same batches in the same order, and strength 0 gives the same bits as no defense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.defense import NONE, Defense, Step
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import draw_seed, spawn
from inversionbench.metrics.ece import calibration_error
from inversionbench.metrics.nll import FLOOR
from inversionbench.models.base import channels_last, trace

__all__ = ["Recipe", "Regression", "augment", "evaluate_classifier", "fit", "train_epochs"]


def fit(
    factory: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    classes: int,
    recipe: Recipe,
    defense: Defense = NONE,
    rng: torch.Generator | None = None,
    progress: Callable[..., Any] | None = None,
    description: str = "train",
    after_epoch: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """Train a network with a defense in the loop; returns it in evaluation mode, on the device of x.

    x: (n, ...) float, or uint8 images, which become floats in [0, 1] batch by batch. y: (n,) int64, or
    (n, classes) soft. rng: seeds everything (None: seed 0); the global generator is left as it was.
    """
    rng = rng if rng is not None else torch.Generator().manual_seed(0)
    order, own = spawn(rng), spawn(rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_seed(rng))  # initial weights, dropout
        x, y = defense.training_set(x, y, own)
        model = channels_last(defense.build_model(factory)).to(x.device).train()
        train_epochs(model, x, y, classes, recipe, defense, order, own, progress, description, after_epoch)
    return model.eval()


def train_epochs(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    classes: int,
    recipe: Recipe,
    defense: Defense,
    order: torch.Generator,
    own: torch.Generator,
    progress: Callable[..., Any] | None = None,
    description: str = "train",
    after_epoch: Callable[[nn.Module, int], None] | None = None,
) -> None:
    """The epochs of `fit`, in place, with H2, H4 and H5. order: of the batches and their augmentation; own:
    of the defense."""
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimiser = make_optimiser(params.values(), recipe)
    total = recipe.epochs * steps_per_epoch(len(x), recipe.batch)
    lots = defense.poisson and defense.strength > 0
    expected = float(min(recipe.batch, len(x))) if lots else 0.0
    epochs = range(recipe.epochs)
    for epoch in progress(epochs, desc=description, total=recipe.epochs) if progress else epochs:
        for step, index in batches(len(x), recipe.batch, epoch, order):
            set_rate(optimiser, recipe, step, total)
            if lots:
                index = defense.lot(y, min(1.0, recipe.batch / len(x)), own)
            bx, by = augment(as_float(x[index]), recipe, order), y[index]
            bx, by = defense.train_transform(bx, by, own, step)
            seen = trace(model, bx)
            ctx = Step(model, bx, by, seen.logits, seen.hidden, step, epoch, recipe.epochs, classes, own, expected,
                       index)  # fmt: skip
            descend(defense.loss(ctx), params, optimiser, recipe.clip, defense, ctx)
        if after_epoch:
            after_epoch(model, epoch)


def descend(
    loss: Tensor, params: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, clip: float,
    defense: Defense, ctx: Step,
) -> None:
    """One optimiser step on H5's gradient. Parameters that the loss does not reach keep their values."""
    raw = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    gradients = {name: g for name, g in zip(params, raw, strict=True) if g is not None}
    gradients = defense.gradient(gradients, ctx)
    for name, parameter in params.items():
        parameter.grad = gradients.get(name)
    if clip > 0:
        nn.utils.clip_grad_norm_(params.values(), clip)
    optimiser.step()


class Regression(Defense):
    """Mean squared error between outputs and targets, in the loop's place for a loss."""

    def loss(self, ctx: Step) -> Tensor:
        return F.mse_loss(ctx.logits, ctx.y)


def steps_per_epoch(n: int, batch: int) -> int:
    """A last batch of a single sample is left out: batch normalisation cannot train on it."""
    full, rest = divmod(n, batch)
    return full + (rest > 1 or n == 1)


def batches(n: int, batch: int, epoch: int, rng: torch.Generator) -> Iterator[tuple[int, Tensor]]:
    """(step over all epochs, index of the batch's samples), in a fresh random order."""
    order = torch.randperm(n, generator=rng)
    steps = steps_per_epoch(n, batch)
    for i in range(steps):
        yield epoch * steps + i, order[i * batch : (i + 1) * batch]


def make_optimiser(params: Any, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(params, recipe.rate, recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    return kind(params, recipe.rate, weight_decay=recipe.weight_decay)


def rate_factor(schedule: str, t: float) -> float:
    """Learning rate divided by the highest one, at the share t in [0, 1) of all steps.

    >>> [rate_factor("step", t) for t in (0.0, 0.8, 0.95)]
    [1.0, 0.1, 0.01]
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * t))
    if schedule == "step":
        return 1.0 if t < 0.75 else 0.1 if t < 0.9 else 0.01
    if t < 0.3:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * t / 0.3))
    return 1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * (t - 0.3) / 0.7))


def set_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int, total: int) -> None:
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate * rate_factor(recipe.schedule, step / max(total, 1))


def augment(x: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """The recipe's own augmentation of images x: (n, channels, height, width) in [0, 1]."""
    n = len(x)

    def chance(p: float) -> Tensor:
        return (torch.rand(n, generator=rng) < p).to(x.device).view(-1, 1, 1, 1)

    if recipe.flip:
        x = torch.where(chance(0.5), x.flip(-1), x)
    if recipe.shift:
        x = _shift(x, recipe.shift, rng)
    if recipe.blur:
        soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        x = torch.where(chance(recipe.blur), soft, x)
    if recipe.noise:
        sd = recipe.noise * torch.rand(n, 1, 1, 1, generator=rng).to(x.device) * chance(0.7)
        x = (x + sd * torch.randn(x.shape, generator=rng).to(x.device)).clamp(0, 1)
    return x


def _shift(x: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Each image moved by its own whole number of pixels in [-most, most], edges repeated."""
    n, _, height, width = x.shape
    padded = F.pad(x, (most,) * 4, mode="replicate")
    dy, dx = torch.randint(0, 2 * most + 1, (2, n), generator=rng).to(x.device)
    rows = (dy[:, None] + torch.arange(height, device=x.device)).view(n, 1, height, 1)
    columns = (dx[:, None] + torch.arange(width, device=x.device)).view(n, 1, 1, width)
    which = torch.arange(n, device=x.device).view(n, 1, 1, 1)
    channel = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1)
    return padded[which, channel, rows, columns]


@torch.no_grad()
def evaluate_classifier(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    release: Callable[[Tensor], Tensor] | None = None,
    keeps_labels: bool = False,
    batch: int = 256,
) -> dict[str, Any]:
    """Utility on the deployed path: accuracy in [0, 1], nll in nats, ece in [0, 1]; chance: accuracy of always saying
    the most frequent class; hits: n booleans.

    x: (n, ...), y: (n,) int64. release: logits -> scores (n, classes), the softmax where None. keeps_labels:
    the label output is the argmax of the logits, not of the released scores. nll and ece take the scores as
    they are released, also where they do not sum to 1; nll counts a true class of score 0 as `FLOOR`; ece
    uses 15 bins of equal width.
    """
    model.eval()
    logits = torch.cat([model(as_float(part)) for part in x.split(batch)])
    scores = release(logits) if release else logits.softmax(1)
    labels = logits.argmax(1) if keeps_labels else scores.argmax(1)
    right = (labels == y).double()
    share = scores.double().clamp(0, 1)
    nll = -share.gather(1, y[:, None]).clamp_min(FLOOR).log()
    return {
        "accuracy": right.mean().item(),
        "nll": nll.mean().item(),
        "ece": calibration_error(share.max(1).values, right),
        "chance": y.bincount().max().item() / len(y),
        "hits": (labels == y).tolist(),
    }


def as_float(x: Tensor) -> Tensor:
    """uint8 images as floats in [0, 1]; anything else as it is."""
    return x.float() / 255 if x.dtype == torch.uint8 else x
