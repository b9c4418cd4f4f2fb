"""Controls: what knowing nothing scores, and that matching cannot smuggle the truth into them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.metrics import Unavailable, score_controls
from inversionbench.metrics._controls import CONTROLS, mean_of_others


def images(n: int, seed: int = 0, side: int = 12) -> torch.Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_every_control_has_every_metric():
    x, public = images(6), images(50, seed=1)
    controls = score_controls(x, public, ["mse", "psnr", "ssim", "avd"], rng())
    assert list(controls) == list(CONTROLS)
    for scores in controls.values():
        assert set(scores.values) == {"mse", "psnr", "ssim", "avd"}
        assert all(v.shape == (6,) for v in scores.values.values())
    assert controls["identical"]["mse"].max() == 0
    assert controls["identical"]["ssim"].min() == 1
    assert controls["mean_image"]["mse"].mean() == pytest.approx(1 / 12, rel=0.1)
    assert controls["random_image"]["mse"].mean() == pytest.approx(1 / 6, rel=0.1)
    assert controls["uniform_noise"]["mse"].mean() == pytest.approx(1 / 6, rel=0.1)


def test_controls_are_seeded():
    x = images(5)
    one, two = (score_controls(x, None, ["mse"], rng()) for _ in range(2))
    assert all(np.array_equal(one[c]["mse"], two[c]["mse"]) for c in CONTROLS)


@pytest.mark.parametrize("options", [{}, {"match": True}, {"match": True, "groups": [0, 0, 0, 1, 1, 1]}])
def test_no_original_stands_in_for_itself(options):
    x = images(6)
    controls = score_controls(x, None, ["mse"], rng(), **options)
    assert controls["random_image"]["mse"].min() > 0.05
    assert controls["mean_image"]["mse"].min() > 0.05
    assert mean_of_others(x)[2, 0, 3, 3].item() == pytest.approx(x[[0, 1, 3, 4, 5], 0, 3, 3].mean().item())


def test_matched_controls_score_better_than_unmatched_ones():
    """The gain of matching belongs into the scale, or an attack gets credit for it."""
    x, public = images(40, side=4), images(400, seed=1, side=4)
    plain = score_controls(x, public, ["mse"], rng())["random_image"]["mse"].mean()
    matched = score_controls(x, public, ["mse"], rng(), match=True)["random_image"]["mse"].mean()
    assert matched < 0.8 * plain


def test_what_a_control_cannot_have_is_said():
    controls = score_controls(images(4), None, ["mse", "lpips_like"], rng())
    assert isinstance(controls["mean_image"]["lpips_like"], Unavailable)
    assert score_controls(images(4), None, ["psnr"], rng())["identical"].capped == 4


def test_refusals():
    with pytest.raises(UserError, match="single original"):
        score_controls(images(1), None, ["mse"], rng())
    with pytest.raises(UserError, match="differ in image shape"):
        score_controls(images(3), images(3, side=9), ["mse"], rng())
    with pytest.raises(UserError, match="public must lie"):
        score_controls(images(3), images(3) * 2, ["mse"], rng())
