"""Where a search of the style space begins, and which of its results are kept: both by the target's scores.

Every sample of the prior is scored once for all classes; each class begins at the samples that score highest
for it. A sample may serve several classes. Of the results, those are kept whose score survives strong random
crops: a pattern that only convinces the target as it stands does not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.latent.crops import Crop
from inversionbench.latent.search import images_per_chunk
from inversionbench.latent.styles import SynthesisFromW
from inversionbench.models.style_prior import StylePrior
from inversionbench.oracle.classifier import WhiteBox

BLOCK = 256  # images that the target sees at once
Ask = Callable[[Tensor], Tensor]  # images (n, c, h, w) in [0, 1] -> softmax scores (n, classes)


def codes(prior: StylePrior, n: int, rng: torch.Generator, psi: float = 1.0) -> Tensor:
    """n codes w (n, w_dim) of the prior, drawn to w_mean by psi, on the prior's device."""
    w = torch.cat([prior.style.style(z.to(prior.p_mean.device)) for z in prior.sample(n, rng).split(BLOCK)])
    return torch.lerp(prior.style.w_mean, w, psi) if psi < 1 else w


def by_passes(target: WhiteBox) -> Ask:
    """Scores by forward passes of the white box."""
    return lambda x: target(x).softmax(1)


@torch.no_grad()
def scores_of(paint: SynthesisFromW, w: Tensor, ask: Ask, mirrored: bool) -> Tensor:
    """Scores (n, classes) of the images of codes, clamped; `mirrored`: mean of those and of their mirror images."""
    out = []
    for part in w.split(images_per_chunk(paint.style.resolution)):
        x = paint(part).clamp(0, 1)
        got = ask(x)
        out.append((got + ask(x.flip(-1))) / 2 if mirrored else got)
    return torch.cat(out)


def best_for(scores: Tensor, targets: Tensor, each: int) -> Tensor:
    """Samples with the highest scores of each class: indices (classes, each), the best first, ties in order.

    >>> best_for(torch.tensor([[0.1, 0.9], [0.7, 0.3], [0.2, 0.8]]), torch.tensor([1, 0]), 2)
    tensor([[0, 2],
            [1, 2]])
    """
    if each > len(scores):
        raise UserError(f"{each} candidates of each class asked for, only {len(scores)} samples drawn: draw more")
    return scores.T[targets.to(scores.device)].sort(dim=1, descending=True, stable=True).indices[:, :each]


@torch.no_grad()
def robustness(target: WhiteBox, x: Tensor, y: Tensor, crop: Crop, times: int, rng: torch.Generator) -> Tensor:
    """Mean score of class y under `times` random crops, the same for all images; x (n, c, h, w), y (n,) to (n,)."""
    where = next(target.parameters()).device
    total = torch.zeros(len(x))
    for _ in range(times):
        drawn = crop.draw(x.shape[-2], x.shape[-1], rng)
        views = (crop.cut(part.to(where), drawn) for part in x.split(BLOCK))
        scores = torch.cat([target(view).softmax(1).cpu() for view in views])
        total += scores.gather(1, y[:, None])[:, 0] / times
    return total


def best_rows(score: Tensor, each: int, keep: int) -> Tensor:
    """Rows of the `keep` highest scores of each class, the best first; score: (classes * each,), class by class.

    >>> best_rows(torch.tensor([0.1, 0.9, 0.5, 0.8, 0.2, 0.3]), 3, 2)
    tensor([1, 2, 3, 5])
    """
    groups = score.view(-1, each).sort(dim=1, descending=True, stable=True).indices[:, :keep]
    return (groups + each * torch.arange(len(groups))[:, None]).flatten()
