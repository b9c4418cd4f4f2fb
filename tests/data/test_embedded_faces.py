"""faces: people as known vectors, disjoint, deterministic, neither trivial nor hopeless to tell apart."""

from __future__ import annotations

import numpy as np
import pytest
from embedded_build import build, same
from sklearn.linear_model import LogisticRegression

from inversionbench.data import _portrait_parts as parts
from inversionbench.data import _portraits as portraits
from inversionbench.data.base import PARTS
from inversionbench.data.faces import Faces, random_people, render

SMALL = Faces(people=6, private=5, evaluation=4, heldout=3, public_people=7, public=2)


@pytest.fixture(scope="module")
def data():
    return build(SMALL)


def test_shapes(data):
    assert data.classes == 6
    for name, n in zip(PARTS, (30, 14, 24, 18)):
        part = getattr(data, name)
        assert part.x.shape == (n, 3, 32, 32)
        assert part.x.dtype == np.uint8
        assert part.extra["attributes"].shape == (n, len(data.meta["attribute_names"]))
        assert part.extra["attributes"].dtype == np.float32
    assert (np.bincount(data.private.y) == 5).all()
    assert (data.public.y == -1).all()
    assert sorted(data.private.y[:6]) == list(range(6))
    for names in ("attribute_clear", "attribute_flags"):
        assert set(data.meta[names]) <= set(data.meta["attribute_names"])


def test_same_seed_same_bytes(data):
    assert same(data, build(SMALL))
    assert not same(data, build(SMALL, seed=1))


def test_sizes_of_other_parts_change_nothing(data):
    other = build(Faces(people=6, private=5, evaluation=1, heldout=1, public_people=2, public=1))
    assert other.private.x.tobytes() == data.private.x.tobytes()


def test_people_are_disjoint_and_vectors_constant(data):
    vectors = {}
    for name in PARTS:
        extra = getattr(data, name).extra
        for i, vector in zip(extra["identity"].tolist(), extra["attributes"]):
            assert np.array_equal(vectors.setdefault(i, vector), vector)
    assert len({v.tobytes() for v in vectors.values()}) == len(vectors) == 13
    assert set(data.private.extra["identity"]) == set(range(6))
    assert set(data.public.extra["identity"]) == set(range(6, 13))
    assert np.array_equal(data.heldout.y, data.heldout.extra["identity"])


def test_attributes_are_visible_ones():
    p = dict(zip(portraits.NAMES, random_people(3000, np.random.default_rng(0)).T))
    assert (np.abs(np.stack(list(p.values()))) <= 1).all()
    shares = {flag: p[flag].mean() for flag in portraits.FLAGS}
    assert 0.29 < shares["glasses"] < 0.37
    assert 0.29 < shares["beard"] < 0.38
    assert 0.08 < shares["bald"] < 0.12
    assert (p["lens_size"][p["glasses"] == 0] == 0).all()
    assert (p["hairline"][p["bald"] == 1] == 0).all()
    assert p["lens_size"][p["glasses"] == 1].std() > 0.3


@pytest.mark.parametrize("name", portraits.NAMES)
def test_every_parameter_changes_the_picture(name):
    """An attribute that draws nothing could never be recovered. Passport photographs, without noise."""
    base = dict.fromkeys(portraits.NAMES, 0.0) | {"beard": 1.0, "glasses": 1.0, "fringe": 0.3, "hair_length": 0.3}
    if name in ("bald", "moustache", "beard", "glasses"):
        low, high = 0.0, 1.0
    else:
        low, high = -0.8, 0.8
    rows = np.array([list((base | {name: v}).values()) for v in (low, high)], np.float32)
    a, b = portraits._draw(rows, _still(2), 48)
    assert np.abs(a - b).max() > 0.04


def _still(n: int, **values: float) -> dict[str, np.ndarray]:
    """n times one and the same photograph without nuisances."""
    one = portraits._photographs(1, np.random.default_rng(3), 0.0)
    photo = {name: np.repeat(value, n, 0) for name, value in one.items()}
    return photo | {name: np.full((n, 1, 1), value, np.float32) for name, value in values.items()}


@pytest.mark.parametrize("roll", [0.0, 0.15])
def test_narrow_eyes_draw_no_bright_bar(monkeypatch, roll):
    """Light that the eyes add to an eyeless face fades with the lids, everywhere, down to none."""
    rows = random_people(40, np.random.default_rng(5))
    rows[:, [portraits.NAMES.index(n) for n in ("glasses", "fringe")]] = 0
    draw = lambda lid: portraits._draw(rows, _still(40, eyelid=lid, roll=roll), 32).mean(1)
    drawn = [draw(lid) for lid in (1.0, 0.3, 0.1, 0.03, 0.0)]
    monkeypatch.setattr(parts, "eyes", lambda canvas: None)
    added = [np.maximum(d - draw(1.0), 0) for d in drawn]
    brightest = [a.max((1, 2)).mean() for a in added]
    assert brightest[0] > 0.05  # open eyes do show white
    assert brightest == sorted(brightest, reverse=True)
    assert added[2].sum() < 0.15 * added[0].sum()
    assert added[-1].max() < 0.01


def test_coverage_of_thin_shapes_fades():
    """The cause of such bars: a shape thinner than a pixel must cover less of it, down to nothing."""
    pixel = np.ones((1, 1, 1), np.float32)
    g = np.arange(48, dtype=np.float32) - 23.75
    x, y = g[None, None, :], g[None, :, None]
    for half in (4.0, 2.0):
        assert parts.ellipse(x, y, 12.0, half, pixel).sum() == pytest.approx(np.pi * 12 * half, rel=0.06)
    areas = [float(parts.ellipse(x, y, 12.0, half, pixel).sum()) for half in (1.0, 0.3, 0.1, 0.01)]
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] < 1.5
    assert parts.ellipse(x, y, 12.0, 0.05, pixel).max() <= 0.1 + 1e-6
    assert parts.strip(y, 0.0, 0.25, pixel).sum() == pytest.approx(0.25, abs=1e-5)
    assert parts.strip(y, 0.3, 0.1, pixel).max() == 0


def test_render_order_range_and_resolution():
    people = random_people(3, np.random.default_rng(0))
    x = render(people, 2, np.random.default_rng(1), resolution=64, nuisance=0.0)
    assert x.shape == (6, 3, 64, 64)
    x = x.astype(float)
    own = np.abs(x[0::2] - x[1::2])[:, :, 20:44, 20:44].mean()
    other = np.abs(x[0::2] - np.roll(x[1::2], 1, 0))[:, :, 20:44, 20:44].mean()
    assert own < 0.5 * other  # rows 2i and 2i + 1 show person i


def test_extreme_people_and_poses_stay_finite(monkeypatch):
    people = np.where(np.random.default_rng(1).random((200, len(portraits.NAMES))) < 0.5, -1, 1).astype(np.float32)
    flags = [portraits.NAMES.index(name) for name in portraits.FLAGS]
    people[:, flags] = people[:, flags] > 0
    drawn = []
    expose = portraits._expose
    monkeypatch.setattr(portraits, "_expose", lambda image, *rest: drawn.append(image) or expose(image, *rest))
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        render(people, 2, np.random.default_rng(0), nuisance=4.0)
    image = np.concatenate(drawn)
    assert np.isfinite(image).all()
    assert image.min() > -0.01
    assert image.max() < 2


def test_batches_do_not_change_the_pictures(monkeypatch):
    people = random_people(5, np.random.default_rng(0))
    whole = render(people, 3, np.random.default_rng(1))
    monkeypatch.setattr(portraits, "CHUNK", 4 * 32 * 32)
    assert np.array_equal(render(people, 3, np.random.default_rng(1)), whole)


def test_linear_model_falls_short_where_nuisance_is_strong():
    """Twelve people: a linear model on pixels is near perfect on passport photographs, poor at the default."""

    def accuracy(nuisance):
        rng = np.random.default_rng(7)
        people = random_people(12, rng)
        x = render(people, 24, rng, nuisance=nuisance).reshape(12, 24, 3, 16, 2, 16, 2).mean((4, 6))
        x = x.reshape(12, 24, -1) / 255
        y = np.repeat(np.arange(12), 12)
        model = LogisticRegression(C=0.1, max_iter=60).fit(x[:, :12].reshape(144, -1), y)
        return model.score(x[:, 12:].reshape(144, -1), y)

    easy, hard = accuracy(0.3), accuracy(1.8)
    assert easy > 0.85
    assert 0.2 < hard < 0.75
