"""Unscrambled images against the originals, of which each has its place: pixels, and what a frozen classifier sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.scenario import Evaluation, Target
from inversionbench.metrics._pairwise import pairwise
from inversionbench.metrics.attack_accuracy import hits
from inversionbench.models.classifiers import load
from inversionbench.training.evaluators import outputs

if TYPE_CHECKING:
    from inversionbench.core.attack import Reconstruction
    from inversionbench.data.base import Dataset

NAMES = ("mse", "psnr", "ssim")
SHOWN = 8


def evaluate(
    reconstruction: Reconstruction, target: Target, data: Dataset, state: Mapping[str, Any], seed: int
) -> Evaluation:
    """top1: whether the judge says of an answer what the original is. Controls: the scrambled image, the attacker's
    network before training, random public images, the originals."""
    n = target.truth["subjects"]
    truth, labels = data.private.images(np.arange(n)), data.private.labels()[:n]
    judge = load(state["model"], data.shape, data.classes, state["state"])
    public = data.public.images()
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(len(public), size=n))
    others = {
        "scrambled": target.released["images"][:n].float() / 255, "untrained": reconstruction.notes.get("untrained"),
        "random_image": public[drawn], "truth": truth,
    }  # fmt: skip

    def score(images: Tensor) -> dict[str, np.ndarray]:
        images = images.float().clamp(0, 1)
        told = hits(outputs(judge, images), labels).double().numpy()
        return {"top1": told, **pairwise(truth, images, NAMES, match=False, seed=seed).values}

    found = reconstruction.data
    nearest = torch.cdist(found[:SHOWN].flatten(1), public.flatten(1)).argmin(1)
    gallery = {"original": truth[:SHOWN], "reconstruction": found[:SHOWN], "nearest": public[nearest]}
    accuracy = float(hits(outputs(judge, data.heldout.images()), data.heldout.labels()).double().mean())
    return Evaluation(
        score(found), np.arange(n), {name: score(x) for name, x in others.items() if x is not None}, {}, {},
        {"judge_accuracy": accuracy}, gallery,
    )  # fmt: skip
