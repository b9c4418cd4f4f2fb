"""Judging the inputs that were rebuilt from answers: as instances (`tracks._instances`), and their class by evaluators.

Facts: `sharpness`, the mean difference of neighbouring pixels, and `within_class`, the variance between reconstructions
of victims of one class, each as a share of that of the victims themselves. A decoder that draws one template of each
class has the class right and a variance of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from inversionbench.core.scenario import Evaluation
from inversionbench.metrics._pairwise import repaired
from inversionbench.metrics.attack_accuracy import agreement, hits
from inversionbench.tracks._instances import evaluate_instances

if TYPE_CHECKING:
    from inversionbench.core.attack import Reconstruction
    from inversionbench.data.base import Dataset
    from inversionbench.training.evaluators import Judges


def evaluate(
    reconstruction: Reconstruction, rows: Tensor, data: Dataset, seed: int, judges: Judges | None,
    further: Sequence[str] = (),
) -> Evaluation:
    """All numbers of one cell; arguments as of `evaluate_instances`."""

    def seen(images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        assert judges is not None
        (first, second), _ = judges.see(images)
        both = {"agreement": agreement(first, second, labels), "top1": hits(first, labels),
                "second": hits(second, labels)}  # fmt: skip
        return {name: np.asarray(hit, dtype=np.float64) for name, hit in both.items()}

    found = evaluate_instances(reconstruction, rows, data, seed, judges, further, seen if judges else None)
    truth, labels = data.heldout.images(rows.numpy()), data.heldout.labels(rows.numpy())
    made = repaired(reconstruction.data, seed)
    found.facts["sharpness"] = sharpness(made) / sharpness(truth)
    spread = within(truth, labels)
    if spread > 0:
        found.facts["within_class"] = within(made, labels) / spread
    return found


def sharpness(x: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels of images (n, c, h, w)."""
    return float(x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean())


def within(x: Tensor, labels: Tensor) -> float:
    """Mean square of images (n, c, h, w) around the mean of their class, over classes with several; 0 without such.

    >>> import torch
    >>> x = torch.tensor([0.0, 1.0, 0.5]).view(3, 1, 1, 1)
    >>> within(x, torch.tensor([0, 0, 1])), within(x, torch.tensor([0, 1, 2]))
    (0.25, 0.0)
    """
    groups = [x[labels == c] for c in labels.unique()]
    several = [float((group - group.mean(0)).square().mean()) for group in groups if len(group) > 1]
    return sum(several) / len(several) if several else 0.0
