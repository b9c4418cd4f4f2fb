"""Dealing samples: disjoint, complete, balanced in every prefix, groups kept together, seeded."""

import numpy as np
import pytest

from inversionbench.core.errors import UserError
from inversionbench.data import _people, _split
from inversionbench.data.base import PARTS


def rng(seed=0):
    return np.random.default_rng(seed)


def disjoint(parts):
    rows = np.concatenate(list(parts.values()))
    assert len(rows) == len(np.unique(rows))
    return rows


def test_robin_balances_every_prefix():
    groups = np.repeat([0, 1, 2], [50, 30, 10])
    rows = _split.robin(np.arange(90), groups, rng())
    assert sorted(rows) == list(range(90))
    for n in range(3, 31, 3):
        np.testing.assert_array_equal(np.bincount(groups[rows[:n]]), [n // 3] * 3)
    assert not np.array_equal(rows, _split.robin(np.arange(90), groups, rng(1)))


def test_deal_follows_shares_in_every_group():
    groups = np.repeat([5, 9], [100, 40])
    parts = _split.deal(np.arange(140), groups, rng(), {"evaluation": 0.3, "heldout": 0.1})
    assert len(disjoint(parts)) == 140
    for group, n in ((5, 100), (9, 40)):
        counts = {part: (groups[rows] == group).sum() for part, rows in parts.items()}
        assert counts == {"private": 0.6 * n, "evaluation": 0.3 * n, "heldout": 0.1 * n}


def test_deal_leaves_something_for_private():
    parts = _split.deal(np.arange(4), np.arange(4), rng(), {"evaluation": 0.6, "heldout": 0.3})
    assert len(parts["private"]) == 4


@pytest.mark.parametrize("shares", [{"public": 1.0}, {"public": -0.1}, {"public": 0.6, "heldout": 0.5}])
def test_shares_that_make_no_sense(shares):
    with pytest.raises(UserError, match="shares"):
        _split.deal(np.arange(9), np.zeros(9, int), rng(), shares)
    with pytest.raises(UserError, match="shares"):
        _split.blocks(np.zeros(9, int), rng(), shares)


def test_blocks_keep_groups_together():
    groups = rng(1).integers(0, 200, 1000)
    parts = _split.blocks(groups, rng(), {"public": 0.4, "evaluation": 0.15, "heldout": 0.1})
    assert len(disjoint(parts)) == 1000
    seen = [set(groups[rows]) for rows in parts.values()]
    assert sum(map(len, seen)) == len(set.union(*seen))
    for part, share in {"private": 0.35, "public": 0.4, "evaluation": 0.15, "heldout": 0.1}.items():
        assert abs(len(parts[part]) / 1000 - share) < 0.02


@pytest.mark.parametrize("public", [[2, 3], []])
def test_classed(public):
    train, test = np.repeat(np.arange(4), 20), np.repeat(np.arange(4), 5)
    private = [c for c in range(4) if c not in public]
    parts = _split.classed(train, test, private, public, rng(), 0.5)
    y = np.concatenate([train, test])
    assert set(parts) == set(PARTS)
    disjoint(parts)
    assert all(set(y[parts[p]]) == set(private) for p in ("private", "evaluation", "heldout"))
    assert set(y[parts["public"]]) == set(public or range(4))
    assert (parts["heldout"] >= 80).all()
    assert (parts["private"] < 80).all()
    sizes = {part: len(rows) for part, rows in parts.items()}
    if public:
        assert sizes == {"private": 20, "evaluation": 20, "public": 50, "heldout": 10}
    else:
        assert sizes == {"private": 20, "evaluation": 20, "public": 40, "heldout": 20}


def test_renumber_follows_the_given_order():
    np.testing.assert_array_equal(_split.renumber(np.array([3, 0, 7, 5]), [7, 3]), [1, -1, 0, -1])


def test_classes_option():
    assert _split.classes("o", [3, 1], 4) == (3, 1)
    for bad in ([1], [1, 1], [1, 4], [-1, 2], [0, "1"]):
        with pytest.raises(UserError, match=r"o: expected two or more of 0\.\.3"):
            _split.classes("o", bad, 4)


def test_people():
    person = np.repeat(np.arange(6), [9, 30, 30, 4, 12, 30])
    private = _people.frequent(person, 10, 3, "o")
    assert private == [1, 2, 5]
    assert _people.frequent(person, 10, 0, "o") == [1, 2, 4, 5]
    with pytest.raises(UserError, match="5 people with 10 photos wanted, 4 found"):
        _people.frequent(person, 10, 5, "o")
    public = _people.others(person, private, 2, rng(), "o")
    assert len(public) == 2
    assert not set(public) & set(private)
    with pytest.raises(UserError, match="4 public people wanted, 3 are not private"):
        _people.others(person, private, 4, rng(), "o")
    shares = {"evaluation": 0.3, "heldout": 0.2}
    parts, sides = _people.plan(person, private, [0, 3], rng(), shares, photos=20, limit=6)
    disjoint(parts)
    assert {p: len(r) for p, r in parts.items()} == {
        "private": 30, "public": 6, "evaluation": 18, "heldout": 12,
    }  # fmt: skip
    np.testing.assert_array_equal(np.bincount(sides["y"][parts["private"]]), [10, 10, 10])
    np.testing.assert_array_equal(np.bincount(person[parts["public"]]), [3, 0, 0, 3])
    assert (sides["y"][parts["public"]] == -1).all()
    used = np.concatenate([parts[p] for p in ("private", "evaluation", "heldout")])
    assert all(np.sort(used[person[used] == p]).tolist() == np.flatnonzero(person == p)[:20].tolist() for p in private)


def test_people_are_numbers():
    np.testing.assert_array_equal(_people.numbered(["b", "a", "b", "c"]), [1, 0, 1, 2])
