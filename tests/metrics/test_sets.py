"""FID, KID and PRDC: exact cases, a second library, loops over the definition, and the bias of small sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.metrics import Unavailable, fid_like
from inversionbench.metrics.fid import floor, frechet, frechet_moments
from inversionbench.metrics.prdc import prdc, prdc_per_class

EYE, ZEROS = np.eye(4), np.zeros(4)


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize(
    ("mean", "covariance", "other_mean", "other_covariance", "expected"),
    [
        (ZEROS, EYE, np.ones(4), EYE, 4.0),
        (ZEROS, EYE, ZEROS, 4 * EYE, 4.0),
        (ZEROS, EYE, ZEROS, EYE, 0.0),
        (ZEROS, np.diag([1.0, 0, 0, 0]), ZEROS, np.diag([1.0, 0, 0, 0]), 0.0),
        (ZEROS, np.diag([1.0, 0, 0, 0]), ZEROS, np.diag([0, 1.0, 0, 0]), 2.0),
    ],
)
def test_frechet_of_known_gaussians(mean, covariance, other_mean, other_covariance, expected):
    one = frechet_moments(mean, covariance, other_mean, other_covariance)
    other = frechet_moments(other_mean, other_covariance, mean, covariance)
    assert one == pytest.approx(expected, abs=1e-9)
    assert other == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 50, 8), (200, 30, 16)])
def test_frechet_agrees_with_the_moments_and_with_pytorch_fid(n, m, d):
    from pytorch_fid.fid_score import calculate_frechet_distance

    a, b = normal(n, d) @ normal(d, d, seed=2), 0.5 * normal(m, d, seed=1) + 1
    moments = (a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet(a, b) == pytest.approx(calculate_frechet_distance(*moments), rel=1e-6)
    assert frechet(a, b) == pytest.approx(frechet_moments(*moments), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)


def test_frechet_with_fewer_images_than_features_is_exact():
    """Singular covariances: two points each, on one line, have a closed form."""
    a, b = np.zeros((2, 30)), np.zeros((2, 30))
    a[1, 0], b[1, 0] = 2.0, 6.0  # standard deviations sqrt(2) and sqrt(18), means 1 and 3
    assert frechet(a, b) == pytest.approx((3 - 1) ** 2 + (18**0.5 - 2**0.5) ** 2, rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_the_bias_of_small_sets_is_what_the_docstring_says():
    d = 64
    for n, expected in ((100, 22.0), (500, 4.6)):
        assert frechet(normal(n, d), normal(n, d, seed=1)) == pytest.approx(expected, rel=0.15)
    assert floor(normal(200, d), np.random.default_rng(0)) == pytest.approx(22.0, rel=0.15)
    assert floor(normal(200, d), np.random.default_rng(0)) == floor(normal(200, d), np.random.default_rng(0))


def test_sets_that_are_too_small_are_unavailable():
    assert "at least 2 images" in frechet(normal(1, 4), normal(5, 4)).reason
    assert "at least 4" in floor(normal(3, 4), np.random.default_rng(0)).reason
    assert isinstance(prdc(normal(3, 4), normal(9, 4)), Unavailable)


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="one width, got 4 and 5"):
        frechet(normal(5, 4), normal(5, 5))
    with pytest.raises(UserError, match="NaN"):
        frechet(normal(5, 4) * np.nan, normal(5, 4))
    with pytest.raises(UserError, match=r"\(n, d\)"):
        frechet(normal(5, 4)[:, 0], normal(5, 4))


def test_fid_like_runs_in_chunks_over_sets_of_different_size():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(n, 3, 8, 8, generator=generator) for n in (30, 20))

    def features(images):
        assert len(images) <= 7
        return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)

    value = fid_like(x, y, features, chunk=7)
    whole = [torch.cat([v.mean(dim=(2, 3)), v.std(dim=(2, 3))], dim=1) for v in (x, y)]
    assert value == pytest.approx(frechet(*whole), rel=1e-5)
    with pytest.raises(UserError, match="reconstruction must lie in"):
        fid_like(x, y * 2, features, chunk=7)


def test_prdc_against_loops_over_its_definition():
    real, fake, k = normal(25, 3), 1.3 * normal(18, 3, seed=1), 3

    def radius(x, i):
        return sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1]

    gap = [[np.linalg.norm(r - f) for f in fake] for r in real]
    in_real = np.array([[gap[i][j] <= radius(real, i) for j in range(18)] for i in range(25)])
    in_fake = np.array([[gap[i][j] <= radius(fake, j) for j in range(18)] for i in range(25)])
    assert prdc(real, fake, k) == pytest.approx(
        {
            "precision": in_real.any(0).mean(),
            "recall": in_fake.any(1).mean(),
            "density": in_real.sum(0).mean() / k,
            "coverage": in_real.any(1).mean(),
        }
    )


def test_prdc_of_equal_and_of_distant_sets():
    x = normal(30, 4)
    same = prdc(x, x)
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    assert same["density"] >= 1
    assert prdc(x, x + 100) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_one_image_repeated_is_precise_but_does_not_cover():
    x = normal(40, 4)
    collapsed = prdc(x, np.repeat(x[:1], 40, axis=0))
    assert collapsed["precision"] == 1
    assert collapsed["recall"] <= 1 / 40
    assert collapsed["coverage"] < 0.5


def test_prdc_per_class_is_the_mean_over_classes():
    real, fake = normal(40, 3), normal(40, 3, seed=1)
    real_classes, fake_classes = np.arange(40) % 2, np.array([0] * 19 + [1] * 19 + [5] * 2)
    found = prdc_per_class(real, real_classes, fake, fake_classes)
    each = [prdc(real[real_classes == c], fake[fake_classes == c]) for c in (0, 1)]
    assert found["density"] == pytest.approx((each[0]["density"] + each[1]["density"]) / 2)
    assert (found["classes"], found["left_out"]) == (2, 1)
    assert isinstance(prdc_per_class(real, real_classes, fake[:2], [0, 1]), Unavailable)


@pytest.mark.parametrize(("real", "fake", "k"), [(normal(9, 3), normal(9, 4), 3), (normal(9, 3), normal(9, 3), 0)])
def test_prdc_refuses(real, fake, k):
    with pytest.raises(UserError, match="prdc"):
        prdc(real, fake, k)
