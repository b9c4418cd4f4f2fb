"""MSE, PSNR and SSIM: hand cases, second libraries, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.metrics.mse import mse
from inversionbench.metrics.psnr import psnr
from inversionbench.metrics.ssim import ssim

FUNCTIONS = {"mse": mse, "psnr": psnr, "ssim": ssim}


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flat(value: float, n: int = 1, channels: int = 1, side: int = 16) -> torch.Tensor:
    return torch.full((n, channels, side, side), value, dtype=torch.float64)


def test_hand_cases_of_mse():
    assert mse(flat(0.3), flat(0.3)).item() == 0
    assert mse(flat(0.3), flat(0.4)).item() == pytest.approx(0.01)
    assert mse(flat(0), flat(1)).item() == 1
    noise, other = uniform(64, 1, 32, 32), uniform(64, 1, 32, 32, seed=1)
    assert mse(noise, other).mean().item() == pytest.approx(1 / 6, rel=0.02)
    assert mse(noise, flat(0.5, 64, side=32)).mean().item() == pytest.approx(1 / 12, rel=0.02)


def test_hand_cases_of_psnr():
    assert psnr(flat(0.3), flat(0.4)).item() == pytest.approx(20)
    assert psnr(flat(0), flat(1)).item() == pytest.approx(0, abs=1e-12)
    assert psnr(flat(0.3), flat(0.3)).item() == 60
    assert psnr(flat(0.3), flat(0.3 + 1e-4)).item() == 60
    noise, other = uniform(64, 1, 32, 32), uniform(64, 1, 32, 32, seed=1)
    assert psnr(noise, other).mean().item() == pytest.approx(10 * math.log10(6), abs=0.05)
    halved = psnr(flat(0.3), flat(0.35)) - psnr(flat(0.3), flat(0.4))
    assert halved.item() == pytest.approx(6.0206, abs=1e-4)


def test_hand_cases_of_ssim():
    x = uniform(2, 3, 16, 20)
    assert torch.equal(ssim(x, x), torch.ones(2, dtype=torch.float64))
    expected = (2 * 0.6 * 0.5 + 1e-4) / (0.36 + 0.25 + 1e-4)
    assert ssim(flat(0.6), flat(0.5)).item() == pytest.approx(expected, abs=1e-9)
    assert ssim(flat(0), flat(1)).item() == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-9)
    assert ssim(x, 1 - x).mean().item() == pytest.approx(-0.97, abs=0.02)
    torch.testing.assert_close(ssim(x, x.flip(-1)), ssim(x.flip(-1), x))
    grey, colour = x[:, :1], x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(ssim(grey, grey.flip(-1)), ssim(colour, colour.flip(-1)))


def test_ssim_at_its_smallest_size():
    x = uniform(1, 1, 11, 11)
    assert -1 <= ssim(x, x.flip(-1)).item() < 1


def test_ssim_agrees_with_piq_and_scikit_image():
    piq = pytest.importorskip("piq")
    structural = pytest.importorskip("skimage.metrics").structural_similarity
    x, y = uniform(4, 3, 17, 24), (uniform(4, 3, 17, 24) * 0.7 + 0.3 * uniform(4, 3, 17, 24, seed=1))
    ours = ssim(x, y)
    theirs = piq.ssim(x, y, data_range=1.0, reduction="none", downsample=False)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    settings = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = [
        structural(a, b, channel_axis=0, **settings)
        for a, b in zip(x.numpy(), y.numpy())
    ]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)


def test_mse_and_psnr_agree_with_scikit_image_and_torchmetrics():
    metrics = pytest.importorskip("skimage.metrics")
    x, y = uniform(3, 3, 12, 12), uniform(3, 3, 12, 12, seed=1)
    for i in range(3):
        assert mse(x, y)[i].item() == pytest.approx(metrics.mean_squared_error(x[i].numpy(), y[i].numpy()))
        theirs = metrics.peak_signal_noise_ratio(x[i].numpy(), y[i].numpy(), data_range=1.0)
        assert psnr(x, y)[i].item() == pytest.approx(theirs)
    functional = pytest.importorskip("torchmetrics.functional.image")
    torch.testing.assert_close(
        psnr(x, y), functional.peak_signal_noise_ratio(y, x, data_range=1.0, reduction="none", dim=(1, 2, 3))
    )


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("truth", "reconstruction", "words"),
    [
        (flat(0.5)[0], flat(0.5)[0], "channels, height, width"),
        (flat(0.5)[:0], flat(0.5)[:0], "n > 0"),
        (flat(0.5), flat(0.5, 2), "one shape"),
        (flat(1.5), flat(0.5), r"truth must lie in \[0, 1\]"),
        (flat(0.5), flat(-0.5), r"reconstruction must lie in \[0, 1\]"),
        (flat(0.5), flat(math.nan), "NaN"),
        (flat(0.5), flat(math.inf), "infinite"),
        ((flat(0.5) * 255).to(torch.uint8), flat(0.5), "uint8"),
        ([[0.5]], flat(0.5), "list"),
    ],
)
def test_bad_input_is_named(name, truth, reconstruction, words):
    with pytest.raises(UserError, match=words) as error:
        FUNCTIONS[name](truth, reconstruction)
    assert str(error.value).startswith(f"{name}: ")


def test_ssim_names_its_smallest_size():
    with pytest.raises(UserError, match="ssim needs images of at least 11 x 11 pixels, got 10 x 16"):
        ssim(flat(0.5)[:, :, :10], flat(0.5)[:, :, :10])


def test_arrays_and_float32_are_accepted():
    x = uniform(2, 1, 12, 12).float()
    assert mse(x.numpy(), x.numpy()).dtype == torch.float64
    assert mse(x, (x + 1e-7).clamp_max(1 + 1e-7)).max().item() < 1e-12
