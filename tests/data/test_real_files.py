"""The real files, where INVERSIONBENCH_DATA names a folder that has them. Counts are those of the publishers."""

import os
from pathlib import Path

import numpy as np
import pytest

from inversionbench.core import registry
from inversionbench.data import sources
from inversionbench.data.base import PARTS
from inversionbench.data.prepare import make, prepare

ROOT = os.environ.get(sources.ROOT_VARIABLE)


def real(name, tmp_path, **options):
    if not ROOT:
        pytest.skip(f"{sources.ROOT_VARIABLE} is not set")
    if sources.present(make(name, options), name, Path(ROOT)) is None:
        pytest.skip(f"no files of {name} in {sources.ROOT_VARIABLE}")
    return prepare(name, options, Path(ROOT), tmp_path / name)


def counts(data, *parts):
    return np.bincount(np.concatenate([getattr(data, part).y for part in parts])).tolist()


DIGITS = {
    "mnist": ([5923, 6742, 5958, 6131, 5842], [980, 1135, 1032, 1010, 982], 0.1307, 0.3081),
    "fashion_mnist": ([6000] * 5, [1000] * 5, 0.2860, 0.3530),
}


@pytest.mark.parametrize("name", DIGITS)
def test_idx_sets(name, tmp_path):
    data = real(name, tmp_path)
    train, test, mean, std = DIGITS[name]
    assert counts(data, "private", "evaluation") == train
    assert counts(data, "heldout") == test
    assert sum(data.meta["split"]["counts"].values()) == 70_000
    sums = np.zeros(3)  # number, sum and sum of squares of the pixels of the training images
    for part in PARTS:
        found = getattr(data, part)
        levels = np.bincount(found.x[found.extra["index"] < 60_000].reshape(-1), minlength=256)
        sums += [levels.sum(), levels @ np.arange(256), levels @ np.arange(256) ** 2]
    assert sums[0] == 60_000 * 784
    assert abs(sums[1] / sums[0] / 255 - mean) < 1e-4
    assert abs(np.sqrt(sums[2] / sums[0] - (sums[1] / sums[0]) ** 2) / 255 - std) < 1e-4
    assert data.meta["identical"]["public"] == 0
    assert _nearest_mean(data) > 0.6  # 0.2 if labels and images did not belong together; 0.73 for the clothes


def _nearest_mean(data):
    """Accuracy on held-out images of the nearest mean image of a class."""
    x = np.asarray(data.private.x[:5000], float).reshape(5000, -1)
    means = np.stack([x[data.private.y[:5000] == c].mean(0) for c in range(data.classes)])
    test = np.asarray(data.heldout.x[:500], float).reshape(500, -1)
    guess = (-2 * test @ means.T + (means**2).sum(1)).argmin(1)
    return (guess == data.heldout.y[:500]).mean()


def test_cifar10_jpeg(tmp_path):
    data = real("cifar10", tmp_path, release="jpeg", private=200, public=200, evaluation=50, heldout=50)
    assert data.meta["title"] == "CIFAR-10 (JPEG)"
    assert data.meta["class_names"] == ["airplane", "automobile", "bird", "cat", "deer"]
    assert counts(data, "private") == [40] * 5
    assert set(np.asarray(data.public.extra["label"]).tolist()) == {5, 6, 7, 8, 9}
    assert (np.asarray(data.heldout.extra["index"]) >= 50_000).all()
    x = np.concatenate([data.private.x, data.public.x]) / 255
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), [0.488, 0.483, 0.450], atol=0.03)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3)), [0.246, 0.244, 0.262], atol=0.02)


def test_lfw_subset(tmp_path):
    data = real("lfw", tmp_path, release="subset", resolution=32)
    assert (data.classes, data.shape) == (34, (3, 32, 32))
    assert counts(data, "private") == [15] * 34
    assert counts(data, "evaluation") == [9] * 34
    assert counts(data, "heldout") == [6] * 34
    people = [set(np.asarray(getattr(data, part).extra["identity"]).tolist()) for part in PARTS]
    assert people[0] == people[2] == people[3]
    assert not people[0] & people[1]
    assert (len(people[1]), len(data.public)) == (80, 320)
    text = (tmp_path / "lfw" / "dataset.json").read_text()
    assert not any(name in text for name in ("George", "Tony", "Alvaro"))
    x = np.asarray(data.private.x, float)
    middle, border = x[:, :, 8:24, 8:24].mean(), np.concatenate([x[:, :, :3], x[:, :, -3:]], 2).mean()
    assert middle > border + 10  # faces are in the middle, and brighter than what is around


BANKS = [("additional", 41_176, 4639, 62), ("full", 45_211, 5289, 50)]


@pytest.mark.parametrize(("release", "rows", "yes", "width"), BANKS)
def test_bank_marketing(release, rows, yes, width, tmp_path):
    data = real("bank_marketing", tmp_path, release=release)
    assert counts(data, *PARTS) == [rows - yes, yes]
    assert data.shape == (width,)
    assert data.meta["repeated"] == {"additional": 12, "full": 0}[release]
    job = next(c for c in data.meta["columns"] if c["name"] == "job")
    assert len(job["values"]) == 12
    shares = np.array([data.meta["split"]["counts"][part] for part in PARTS]) / rows
    np.testing.assert_allclose(shares, [0.6, 0.2, 0.1, 0.1], atol=0.005)


def test_sms_spam(tmp_path):
    data = real("sms_spam", tmp_path)
    assert sum(data.meta["split"]["counts"].values()) + data.meta["repeated"] == 5574
    ham, spam = counts(data, *PARTS)
    assert (ham, spam) == (4518, 653)  # of 4,827 and 747 with repetitions
    texts = [set(np.asarray(getattr(data, part).x).tolist()) for part in PARTS]
    assert len(set.union(*texts)) == sum(map(len, texts)) == ham + spam


def test_fsdd(tmp_path):
    data = real("fsdd", tmp_path)
    assert data.meta["split"]["counts"] == {"private": 800, "public": 1000, "evaluation": 1000, "heldout": 200}
    length = np.concatenate([np.asarray(getattr(data, part).extra["length"]) for part in PARTS])
    assert length.min() == 1148  # 0.14 s
    assert abs(length.mean() / 8000 - 0.44) < 0.01
    assert 0.1 < np.abs(data.private.x[:100]).max(1).mean() <= 1


def test_cora(tmp_path):
    whole = real("cora", tmp_path, nodes=0).private
    edges = np.asarray(whole.extra["adjacency"])
    assert edges.sum() // 2 == 5278
    assert whole.x.shape == (2708, 1433)
    assert set(np.unique(whole.x)) == {0.0, 1.0}
    assert np.bincount(whole.y).tolist() == [351, 217, 418, 818, 426, 298, 180]
    assert (whole.extra["train"].sum(), whole.extra["test"].sum()) == (140, 1000)
    one, two = np.nonzero(np.triu(edges))
    assert (whole.y[one] == whole.y[two]).mean() > 0.8  # papers cite papers of their topic


def test_cora_parts(tmp_path):
    data = real("cora", tmp_path)
    assert data.meta["split"]["counts"] == {"private": 300, "public": 1808, "evaluation": 300, "heldout": 300}
    assert 400 < data.meta["edges"]["private"] < 800


def test_checksums_of_all_real_files_that_are_here():
    if not ROOT:
        pytest.skip(f"{sources.ROOT_VARIABLE} is not set")
    for name in registry.methods("dataset"):
        source = make(name, {})
        found = None if source.card.embedded else sources.present(source, name, Path(ROOT))
        if found and name not in DIGITS and sum(p.stat().st_size for _, p in found.files) < 1 << 26:
            assert len(sources.verify(found)) == len(found.files)
