"""AVD, FSIM, RDLV and IIP: the hand cases of their definitions, their blind spots, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.metrics import pairwise
from inversionbench.metrics.avd import avd
from inversionbench.metrics.fsim import fsim
from inversionbench.metrics.iip import iip, places
from inversionbench.metrics.rdlv import rdlv, rdlv_and_difference
from inversionbench.metrics.ssim import ssim


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth(n: int, seed: int = 0) -> torch.Tensor:
    """Images with structure: blurred noise, stretched to [0, 1]."""
    x = torch.nn.functional.avg_pool2d(images(n, 1, 36, 36, seed=seed), 5, 1)
    low, high = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
    return (x - low) / (high - low)


COLUMN = torch.arange(8, dtype=torch.float64).expand(1, 1, 8, 8)
ZERO = torch.zeros(1, 1, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize(
    ("truth", "reconstruction", "expected"),
    [
        (ZERO + 0.2, ZERO + 0.9, 0.0),
        (COLUMN / 20, COLUMN / 20 + 0.3, 0.0),
        (ZERO, COLUMN / 10, 0.1),
        (ZERO, COLUMN.square() / 100, 0.0067**0.5),
        (ZERO, (COLUMN + COLUMN.transpose(2, 3)) % 2, 12**0.5),
        (images(1, 1, 8, 8), 1 - images(1, 1, 8, 8), 0.0),
        (ZERO, COLUMN / 10 - 0.1 * COLUMN.transpose(2, 3) + 0.0, None),
    ],
)
def test_hand_cases_of_avd(truth, reconstruction, expected):
    if expected is None:  # edges where both differences cancel vanish: a known blind spot
        reconstruction, expected = (reconstruction + 0.7) / 1.4, 0.0
    assert avd(truth, reconstruction).item() == pytest.approx(expected, abs=1e-12)


def test_avd_crops_are_those_of_the_definition():
    """One bright pixel, against the definition written with loops over positions."""
    v = np.zeros((5, 6))
    v[2, 3] = 1.0
    dx, dy = v[:, :-1] - v[:, 1:], v[:-1] - v[1:]
    dxx, dyy = dx[:, :-1] - dx[:, 1:], dy[:-1] - dy[1:]
    g = [abs(dx[i + 1, j] + dy[i, j + 1]) for i in range(4) for j in range(5)]
    h = [abs(dxx[i + 2, j] + dyy[i, j + 2]) for i in range(3) for j in range(4)]
    expected = np.sqrt(np.mean(np.square(g)) + 0.5 * np.mean(np.square(h)))
    image = torch.from_numpy(v)[None, None]
    assert avd(image * 0, image).item() == pytest.approx(expected, rel=1e-12)
    assert expected > 0.3


def test_fsim_is_one_for_equals_symmetric_and_ordered():
    x = smooth(4)
    noise = images(4, 1, 32, 32, seed=1)
    np.testing.assert_allclose(fsim(x, x).numpy(), 1.0)
    np.testing.assert_allclose(fsim(x, noise).numpy(), fsim(noise, x).numpy())
    near, far = (fsim(x, (x + a * (noise - 0.5)).clamp(0, 1)) for a in (0.05, 0.5))
    assert (near < 1).all()
    assert (near > far).all()
    assert (far > fsim(x, noise)).all()


def test_fsim_of_flat_images():
    """Two flat images have no phase; one flat image is as good as black, whatever its grey."""
    x = smooth(2)
    assert torch.isnan(fsim(x * 0, x * 0 + 1)).all()
    np.testing.assert_allclose(fsim(x, x * 0 + 0.37).numpy(), fsim(x, x * 0).numpy(), rtol=1e-12)
    scores = pairwise(torch.cat([x, x[:1] * 0]), torch.cat([x, x[:1] * 0]), ["fsim"])
    assert scores.record()["metrics"]["fsim"]["undefined"] == 1
    assert np.isfinite(scores.values["fsim"]).tolist() == [True, True, False]
    flat = pairwise(x * 0, x * 0, ["fsim", "mse"])
    assert "undefined for all 2 images" in flat["fsim"].reason
    assert set(flat.values) == {"mse"}


def test_fsim_colour():
    x = images(2, 3, 16, 16)
    assert (fsim(x, x.flip(1), chromatic=True) < fsim(x, x.flip(1))).all()
    with pytest.raises(UserError, match="fsim: expected 3 channels, got 1"):
        fsim(x[:, :1], x[:, :1], chromatic=True)
    with pytest.raises(UserError, match="fsim: expected 1 or 3 channels, got 2"):
        fsim(x[:, :2], x[:, :2])


def test_rdlv_against_its_definition():
    x, prior = smooth(5), smooth(1, seed=3).mul(0.3).add(0.35)
    y = (x + 0.3 * images(5, 1, 32, 32, seed=1)).clamp(0, 1)
    base = ssim(x, prior.expand_as(x))
    ok = base >= 0.05
    assert ok.any()
    value, difference = rdlv_and_difference(x, y, prior)
    np.testing.assert_allclose(value[ok], ((ssim(x, y) - base) / base)[ok])
    np.testing.assert_allclose(difference, ssim(x, y) - base)
    assert torch.equal(rdlv(x, prior.expand_as(x), prior)[ok], torch.zeros(int(ok.sum()), dtype=torch.float64))
    np.testing.assert_allclose(rdlv(x, x, prior)[ok], ((1 - base) / base)[ok])


def flat_with(similarity: float) -> torch.Tensor:
    """A flat image whose SSIM with a white one is `similarity`: (2 b + c) / (1 + b^2 + c) = s, c = 1e-4."""
    s, c = similarity, 1e-4
    return torch.full((1, 1, 16, 16), (1 - (1 - s * (s * (1 + c) - c)) ** 0.5) / s, dtype=torch.float64)


def test_hand_cases_of_rdlv():
    white = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    assert ssim(white, flat_with(0.25)).item() == pytest.approx(0.25)
    assert rdlv(white, white, flat_with(0.25)).item() == pytest.approx(3)
    assert rdlv(white, flat_with(0.1), flat_with(0.2)).item() == pytest.approx(-0.5)
    assert rdlv(white, flat_with(0.2), flat_with(0.2)).item() == 0


def test_rdlv_with_a_prior_that_resembles_nothing_is_undefined():
    x = smooth(4)
    value, difference = rdlv_and_difference(x, x, 1 - x)
    assert torch.isnan(value).all()
    assert (difference > 1).all()
    scores = pairwise(x, x, ["rdlv"], prior=1 - x[:1])
    assert set(scores.values) | set(scores.unavailable) == {"rdlv", "dssim"}
    assert np.isfinite(scores.values["dssim"]).all()


def test_a_prior_for_each_image_is_cut_into_chunks_as_the_images_are():
    x, prior = smooth(6), 0.3 * smooth(6, seed=7) + 0.35
    whole = rdlv_and_difference(x, x.flip(0), prior)
    scores = pairwise(x, x.flip(0), ["rdlv"], prior=prior, chunk=4)
    np.testing.assert_allclose(scores.values["dssim"], whole[1], rtol=1e-6)
    with pytest.raises(UserError, match="prior must be one image"):
        pairwise(x, x, ["rdlv"], prior=prior[:5])


def test_rdlv_refuses_another_prior_shape():
    with pytest.raises(UserError, match="prior must be one image"):
        rdlv(smooth(3), smooth(3), smooth(2))


def test_iip_hits_and_misses():
    pool = images(20, 1, 6, 6)
    index = torch.tensor([3, 7, 11])
    assert iip(pool[index], pool, index).tolist() == [1, 1, 1]
    assert iip(pool[[3, 3, 3]], pool, index).tolist() == [1, 0, 0]
    noise = iip(images(2000, 1, 6, 6, seed=1), pool, torch.arange(2000) % 20)
    assert noise.mean().item() == pytest.approx(1 / 20, abs=0.02)


def test_iip_counts_a_copy_of_the_original_as_a_hit():
    pool = images(4, 1, 6, 6)
    pool[0] = pool[3]
    assert iip(pool[3:], pool, [3]).tolist() == [1]


def test_iip_within_the_class_and_by_features():
    pool = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).view(3, 1, 1, 1)
    guess = torch.full((1, 1, 1, 1), 0.45, dtype=torch.float64)
    assert iip(guess, pool, [0]).tolist() == [0]
    assert iip(guess, pool, [0], classes=[0], pool_classes=[0, 1, 0]).tolist() == [1]

    def features(x):  # 0.45 looks like 1.0 to this network
        return torch.stack([(x > 0.4).flatten().float(), (x < 0.4).flatten().float() + 0.1 * x.flatten().round()], 1)

    assert iip(guess, pool[[0, 2]], [1], features=features, distance="cosine").tolist() == [1]
    with pytest.raises(UserError, match="'l2' or 'cosine'"):
        iip(guess, pool, [0], distance="l1")
    with pytest.raises(UserError, match="both classes and pool_classes"):
        iip(guess, pool, [0], classes=[0])


def test_places_finds_copies_in_either_precision_and_names_what_is_missing():
    pool = (images(9, 1, 6, 6) * 255).round() / 255
    assert places(pool[[4, 2]].float(), pool).tolist() == [4, 2]
    with pytest.raises(UserError, match="1 of 2 originals are not in the pool"):
        places(torch.cat([pool[:1], images(1, 1, 6, 6, seed=8)]), pool)
    with pytest.raises(UserError, match=r"index must lie in 0..8"):
        iip(pool[:1], pool, [9])


def test_pairwise_computes_them_all_in_one_call():
    x = smooth(6).float()
    y = (x + 0.1 * images(6, 1, 32, 32, seed=2).float()).clamp(0, 1)
    names = ["mse", "psnr", "ssim", "fsim", "avd", "rdlv", "iip"]
    scores = pairwise(x, y, names, prior=x.mean(0, keepdim=True), pool=x, chunk=4)
    assert set(scores.values) == {*names, "dssim"}
    for name, function in (("fsim", fsim), ("avd", avd), ("ssim", ssim)):
        np.testing.assert_allclose(scores.values[name], function(x, y).numpy())
    assert scores.values["iip"].mean() == 1
    assert scores.notes == {"iip_pool": 6, "iip_distance": "pixels, l2, all classes"}
