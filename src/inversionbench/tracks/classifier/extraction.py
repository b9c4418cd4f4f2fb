"""Knowledge extraction score: what a fresh classifier learns from reconstructions alone.

Struppek, Hintersdorf, Kersting, ICLR 2024 (released code: ResNet-50, SGD, 75 epochs). A network trained on the
attack's images with the classes that they claim to show is asked about the real private photographs of these
classes. Images that fool an evaluator and show nobody teach nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from inversionbench.core.device import device
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import spawn
from inversionbench.models.classifiers import build
from inversionbench.training.loop import evaluate_classifier, fit

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.data.base import Dataset

STUDENT = {"name": "resnet", "width": 16}
BATCH = 32


def knowledge_extraction(
    x: Tensor, y: Tensor, data: Dataset, rng: torch.Generator, steps: int = 400
) -> dict[str, float]:
    """Accuracy on the private photographs of the attacked classes, and chance. x: (n, c, h, w) in [0, 1];
    y: (n,) classes. The student is small and trained for about `steps` steps."""
    classes = y.unique()
    where = device()
    epochs = max(1, round(steps / max(len(x) / BATCH, 1)))
    recipe = Recipe(epochs=epochs, batch=BATCH, rate=3e-3, flip=True, shift=1)
    student = fit(
        lambda: build(STUDENT, data.shape, len(classes)), x.to(where), torch.searchsorted(classes, y).to(where),
        len(classes), recipe, rng=spawn(rng),
    )
    truth = data.private.labels()
    rows = torch.isin(truth, classes).nonzero()[:, 0]
    real, labels = data.private.images(rows.numpy()).to(where), torch.searchsorted(classes, truth[rows]).to(where)
    return {"accuracy": evaluate_classifier(student, real, labels)["accuracy"], "chance": 1 / len(classes)}
