"""Reconstructions of the very inputs that somebody sent, one for each victim, against the truth.

Pixel metrics of every pair (`metrics._pairwise`), further ones where the scenario asks for them; where judges look on,
whether the verifier knows the victim again (`identified`, `verified`), which wants a data set of people. Controls: the
public mean image, the mean of the public images of the victim's class, another victim's image, what the attack made of
another victim's release (swapped: an attack that ignores what it observes scores the same there), the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.scenario import Evaluation
from inversionbench.metrics._pairwise import pairwise, repaired
from inversionbench.tracks.base import PIXELS

if TYPE_CHECKING:
    from inversionbench.core.attack import Reconstruction
    from inversionbench.data.base import Dataset
    from inversionbench.training.evaluators import Judges

GALLERY = 12


def evaluate_instances(
    reconstruction: Reconstruction, rows: Tensor, data: Dataset, seed: int, judges: Judges | None = None,
    further: Sequence[str] = (), also: Callable[[Tensor, Tensor], dict[str, np.ndarray]] | None = None,
) -> Evaluation:
    """All numbers of one cell. rows: int64 (n,), the victims' places in the held-out part, n > 1; the answer's data:
    (n, channels, height, width). further: metrics of pairs of images beyond `PIXELS`. also: what else is measured of
    images and of the controls, from the images and the victims' labels. seed: of the noise that stands for what failed.
    """
    truth, labels = data.heldout.images(rows.numpy()), data.heldout.labels(rows.numpy())
    found, public = reconstruction.data.clone(), data.public.images()
    if reconstruction.failed is not None:
        found[reconstruction.failed] = torch.nan
    mean = public.mean(0, keepdim=True)

    def score(images: Tensor, names: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        made = pairwise(truth, images, tuple(names), prior=mean, pool=truth, seed=seed)
        missing = {name: gone.reason for name, gone in made.unavailable.items()}
        missing |= {n: "undefined for some images" for n, v in made.values.items() if not np.isfinite(v).all()}
        values = {name: v for name, v in made.values.items() if name not in missing}
        for prefix, gallery in (judges.galleries if judges else {}).items():
            known = gallery.scores(repaired(images, seed), labels)
            values |= {prefix + name: value.double().numpy() for name, value in known.items()}
        return {**values, **(also(repaired(images, seed), labels) if also else {})}, missing

    metrics, unavailable = score(found, (*PIXELS, *further))
    if judges is None:
        unavailable["identified"] = "the scenario names no judges"
    guesses = {"mean_image": mean.expand_as(truth), "other_victim": truth.roll(1, 0), "swapped": found.roll(1, 0),
               "truth": truth}  # fmt: skip
    if (of_class := _class_means(data, labels)) is not None:
        guesses["class_mean"] = of_class
    controls = {name: score(images, PIXELS)[0] for name, images in guesses.items()}
    curves = [(at, pairwise(truth, x, ("psnr",), seed=seed).values["psnr"]) for at, x in reconstruction.checkpoints]
    shown = repaired(found, seed)[:GALLERY]
    nearest = public[torch.cdist(shown.flatten(1), public.flatten(1)).argmin(1)]
    facts: dict[str, Any] = {"failures": int((~torch.isfinite(found).flatten(1).all(1)).sum())}
    if judges:
        facts["heldout"] = judges.heldout
        unavailable |= {f"{prefix}identified": reason for prefix, reason in judges.absent.items()}
    return Evaluation(
        metrics, rows.numpy(), controls, {"psnr": curves} if curves else {}, unavailable, facts,
        {"original": truth[:GALLERY], "reconstruction": shown, "nearest": nearest},
    )


def _class_means(data: Dataset, labels: Tensor) -> Tensor | None:
    """The public mean image of each victim's class; None where the public part does not show all of these classes."""
    y = data.public.labels()
    if not torch.isin(labels, y).all():
        return None
    return torch.stack([data.public.images((y == c).numpy()).mean(0) for c in labels])
