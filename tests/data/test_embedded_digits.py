"""digits: private and public digits, or all ten with other samples."""

from __future__ import annotations

import numpy as np
import pytest
from embedded_build import build, same
from sklearn.datasets import load_digits

from inversionbench.core.errors import UserError
from inversionbench.data.base import PARTS
from inversionbench.data.digits import Digits


@pytest.fixture(scope="module")
def data():
    return build(Digits())


def test_shapes_and_classes(data):
    assert data.shape == (1, 32, 32)
    assert data.classes == 5
    assert data.meta["class_names"] == list("01234")
    for name in ("private", "evaluation", "heldout"):
        part = getattr(data, name)
        assert np.array_equal(part.y, part.extra["label"])
        counts = np.bincount(part.y)
        assert counts.min() > 0.75 * counts.max()
        assert part.x.dtype == np.uint8
    assert (data.public.y == -1).all()
    assert set(data.public.extra["label"]) == {5, 6, 7, 8, 9}


def test_pictures_are_the_sources(data):
    source = load_digits().images
    for x, i in zip(data.private.x[:20], data.private.extra["index"][:20]):
        small = x[0].reshape(8, 4, 8, 4).mean((1, 3)) * (16 / 255)
        assert np.corrcoef(small.ravel(), source[i].ravel())[0, 1] > 0.97


def test_samples_are_disjoint_and_all_used(data):
    for protocol in ("classes", "samples"):
        made = build(Digits(protocol=protocol, resolution=8))
        index = np.concatenate([getattr(made, name).extra["index"] for name in PARTS])
        assert len(set(index)) == len(index) == 1797


def test_all_ten_digits():
    made = build(Digits(protocol="samples", resolution=16))
    assert made.classes == 10
    assert set(made.public.y) == set(range(10))
    assert made.shape == (1, 16, 16)


def test_same_seed_same_bytes(data):
    assert same(data, build(Digits()))
    assert not same(data, build(Digits(), seed=1))


def test_bad_classes_are_refused():
    with pytest.raises(UserError, match="private_classes"):
        build(Digits(private_classes=(0, 11)))
