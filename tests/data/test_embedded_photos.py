"""photos: real pixels, ten classes, private and public crops without a common pixel."""

from __future__ import annotations

import socket
from dataclasses import replace

import numpy as np
import pytest
from embedded_build import build, same

from inversionbench.core.errors import UserError
from inversionbench.data import photos
from inversionbench.data.base import PARTS
from inversionbench.data.photos import PHOTOGRAPHS, Photos, blocks, contrast, open_photograph, shrink

SMALL = Photos(private=12, public=12, evaluation=8, heldout=6)


@pytest.fixture(scope="module")
def data():
    return build(SMALL)


def _pixels(part, c):
    """Which pixels of photograph c the crops of a part cover: bool (height, width)."""
    width, height = open_photograph(list(PHOTOGRAPHS)[c]).size
    covered = np.zeros((height, width), bool)
    for left, top, right, bottom in part.extra["box"][part.y == c]:
        covered[top:bottom, left:right] = True
    return covered


def test_shapes_and_balance(data):
    assert data.classes == 10
    assert data.shape == (3, 32, 32)
    for name, n in zip(PARTS, (12, 12, 8, 6)):
        part = getattr(data, name)
        assert part.x.shape == (10 * n, 3, 32, 32)
        assert part.x.dtype == np.uint8
        assert (np.bincount(part.y) == n).all()
        assert sorted(part.y[:10]) == list(range(10))  # prefixes are balanced


def test_same_seed_same_bytes(data):
    assert same(data, build(SMALL))
    assert not same(data, build(SMALL, seed=1))


def test_private_part_does_not_depend_on_the_size_of_the_others(data):
    other = build(Photos(private=12, public=3, evaluation=2, heldout=2))
    assert other.private.x.tobytes() == data.private.x.tobytes()
    more = build(replace(SMALL, heldout=30))
    for name in ("private", "public", "evaluation"):
        assert getattr(more, name).x.tobytes() == getattr(data, name).x.tobytes()


@pytest.mark.parametrize("c", range(10))
def test_no_private_pixel_is_public(data, c):
    private, public = _pixels(data.private, c), _pixels(data.public, c)
    assert private.any()
    assert public.any()
    assert not (private & public).any()
    for name in ("evaluation", "heldout"):  # further crops of the private blocks
        assert not (_pixels(getattr(data, name), c) & public).any()


def test_crops_lie_in_blocks_and_hold_only_their_pixels(data):
    part = data.private
    for c, name in enumerate(PHOTOGRAPHS):
        picture = open_photograph(name)
        box = part.extra["box"][part.y == c][0]
        owner = [
            colour for (left, top, side), colour in blocks(picture.size)
            if left <= box[0] and top <= box[1] and box[2] <= left + side and box[3] <= top + side
        ]  # fmt: skip
        assert owner == [0]
        pixels = np.array(picture)
        outside = np.ones(pixels.shape[:2], bool)
        outside[box[1] : box[3], box[0] : box[2]] = False
        pixels[outside] = 0
        from PIL import Image

        again = shrink(Image.fromarray(pixels), tuple(box.tolist()), 32)
        x = part.x[part.y == c][0]
        assert np.array_equal(again, x) or np.array_equal(again[:, :, ::-1], x)


def test_no_crop_twice(data):
    keys = [(c, *box) for name in PARTS for c, box in _keys(getattr(data, name))]
    assert len(set(keys)) == len(keys)


def _keys(part):
    return [(int(c), tuple(box)) for c, box in zip(part.y, part.extra["box"].tolist())]


def test_contrast_filter(data):
    passed = np.mean([contrast(x) >= 0.12 for x in data.private.x])
    flat = build(Photos(private=12, public=1, evaluation=1, heldout=1, contrast=0.0))
    assert passed > 0.95
    assert np.mean([contrast(x) >= 0.12 for x in flat.private.x]) < passed - 0.1
    assert contrast(np.full((3, 8, 8), 200, np.uint8)) == 0


def test_opens_without_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "socket", refuse)
    assert {open_photograph(name).mode for name in PHOTOGRAPHS} == {"RGB"}


def test_other_file_is_refused(monkeypatch):
    package, path, _ = PHOTOGRAPHS["cat"]
    monkeypatch.setitem(photos.PHOTOGRAPHS, "cat", (package, path, "0" * 64))
    with pytest.raises(UserError, match="sha256"):
        open_photograph("cat")
    monkeypatch.setitem(photos.PHOTOGRAPHS, "cat", (package, "data/no.png", "0" * 64))
    with pytest.raises(UserError, match=r"no\.png"):
        open_photograph("cat")


def test_too_fine_a_resolution_is_refused():
    with pytest.raises(UserError, match="resolution"):
        build(Photos(resolution=128, private=1, public=1, evaluation=1, heldout=1))
