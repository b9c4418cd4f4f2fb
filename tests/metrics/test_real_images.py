"""Scores of simple degradations of real images, against values measured once with the reference libraries."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from inversionbench.metrics import pairwise

FOLDER = Path(os.environ.get("INVERSIONBENCH_DATA", "")) / "fashion_mnist"
needs_data = pytest.mark.skipif(
    "INVERSIONBENCH_DATA" not in os.environ or not (FOLDER / "train-images-idx3-ubyte.gz").exists(),
    reason="INVERSIONBENCH_DATA names no folder with fashion_mnist",
)

# mean over the first 200 test images: MSE, PSNR, SSIM, FSIM (on grey), AVD
TOLERANCE = (6e-4, 0.06, 2e-3, 3e-3, 2e-3)  # the digits given, other noise, class means of other images
OTHER_NOISE = (2e-3, 0.06, 7e-3, 3e-3, 5e-3)  # about three standard deviations between draws of the noise
EXPECTED = {
    "noise 0.05": (0.0018, 27.5, 0.843, 0.861, 0.135),
    "noise 0.2": (0.025, 16.0, 0.531, 0.608, 0.481),
    "blur": (0.0135, 19.0, 0.692, 0.834, 0.309),
    "shift": (0.075, 12.1, 0.260, 0.673, 0.376),
    "class mean": (0.052, 13.5, 0.374, 0.648, 0.319),
    "mean": (0.090, 10.8, 0.139, 0.461, 0.352),
    "another image": (0.178, 8.0, 0.072, 0.497, 0.446),
    "zeros": (0.216, 7.7, 0.046, 0.388, 0.377),
    "uniform noise": (0.254, 6.0, 0.009, 0.351, 0.942),
}


def pixels(name: str) -> np.ndarray:
    with gzip.open(FOLDER / f"{name}-idx3-ubyte.gz") as handle:
        return np.frombuffer(handle.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)


def labels(name: str) -> np.ndarray:
    with gzip.open(FOLDER / f"{name}-idx1-ubyte.gz") as handle:
        return np.frombuffer(handle.read(), np.uint8, offset=8)


@pytest.fixture(scope="module")
def rows() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    x, others = torch.tensor(pixels("t10k-images")[:400] / 255).split(200)
    train, classes = pixels("train-images"), labels("train-labels")
    means = np.stack([train[classes == k].mean(axis=0) for k in range(10)]) / 255
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    return x, {
        "noise 0.05": (x + 0.05 * noise).clamp(0, 1),
        "noise 0.2": (x + 0.2 * noise).clamp(0, 1),
        "blur": torch.nn.functional.avg_pool2d(x, 3, 1, 1),
        "shift": torch.roll(x, 2, dims=-1),
        "class mean": torch.tensor(means[labels("t10k-labels")[:200]]),
        "mean": torch.tensor(means.mean(axis=0)).expand_as(x),
        "another image": others,
        "zeros": x * 0,
        "uniform noise": torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype),
    }


@needs_data
@pytest.mark.parametrize("name", EXPECTED)
def test_degradations_of_real_images(rows, name):
    x, reconstructions = rows
    scores = pairwise(x, reconstructions[name], ["mse", "psnr", "ssim", "fsim", "avd"])
    means = np.array([values.mean() for values in scores.values.values()])
    allowed = OTHER_NOISE if name == "uniform noise" else TOLERANCE
    assert (np.abs(means - EXPECTED[name]) < allowed).all(), means
