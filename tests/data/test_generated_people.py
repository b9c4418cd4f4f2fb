"""The generated census and the generated clinical notes: their equations, and that nobody is in two parts."""

from __future__ import annotations

import numpy as np
import pytest
from embedded_build import build, same
from sklearn.linear_model import LogisticRegression

from inversionbench.core.errors import UserError
from inversionbench.data.base import PARTS
from inversionbench.data.census import COLUMNS, EMPLOYER, MARITAL, SCHOOLS, WORK, Census, pay, people
from inversionbench.data.clinical_notes import DRUGS, NAMES, SLOTS, TEMPLATES, ClinicalNotes, notes
from inversionbench.data.prepare import prepare

SMALL = {
    "census": Census(private=400, public=300, evaluation=50, heldout=100),
    "clinical_notes": ClinicalNotes(private=200, public=200, evaluation=20, heldout=40),
}


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_same_bytes_and_no_sample_twice(name):
    data = build(SMALL[name])
    assert same(data, build(SMALL[name]))
    assert not same(data, build(SMALL[name], seed=1))
    rows = np.concatenate([getattr(data, part).x for part in PARTS])
    assert len(np.unique(rows, axis=0)) == len(rows) == sum(getattr(SMALL[name], part) for part in PARTS)


@pytest.mark.parametrize("name", SMALL)
def test_prepared(name, tmp_path, monkeypatch):
    monkeypatch.delenv("INVERSIONBENCH_DATA", raising=False)
    sizes = {part: getattr(SMALL[name], part) for part in PARTS}
    data = prepare(name, sizes, None, tmp_path / "a")
    assert {part: len(getattr(data, part)) for part in PARTS} == sizes
    assert data.meta["modality"] == ("table" if name == "census" else "text")
    with pytest.raises(UserError, match="heldout 0"):
        build(type(SMALL[name])(heldout=0))


@pytest.fixture(scope="module")
def raw():
    return people(60_000, np.random.default_rng(0))


def test_census_follows_its_equations(raw):
    assert set(raw) == {c.name for c in COLUMNS}
    assert (raw["age"].min(), raw["age"].max()) >= (17, 80)
    assert raw["age"].mean() == pytest.approx(17 - 0.5 + 73 * 1.8 / 4.8, abs=0.3)  # mean of a Beta, floored
    assert np.bincount(raw["group"]) / 60_000 == pytest.approx([0.55, 0.2, 0.12, 0.08, 0.05], abs=0.01)
    local = [(raw["birthplace"][raw["group"] == g] == 0).mean() for g in range(5)]
    assert local == pytest.approx([0.95, 0.7, 0.5, 0.6, 0.8], abs=0.02)
    middle = (raw["group"] == 0) & (raw["age"] >= 22) & (raw["age"] <= 55)  # schooling is 0.2 + N there
    assert (raw["education"][middle] <= 2).mean() == pytest.approx(0.4602, abs=0.01)  # P(N < -0.1)
    assert (raw["education"][middle] == 6).mean() == pytest.approx(0.0446, abs=0.005)  # P(N > 1.7)


def test_census_columns_depend_on_each_other(raw):
    age, married = raw["age"], raw["marital"] == MARITAL.index("married")
    assert (raw["marital"][age < 25] == 0).mean() > 0.5 > (raw["marital"][age > 50] == 0).mean() + 0.3
    assert (raw["marital"][age > 75] == MARITAL.index("widowed")).mean() > 0.3
    assert raw["children"][married & (age > 40)].mean() > raw["children"][raw["marital"] == 0].mean() + 0.8
    idle = raw["occupation"] == list(WORK).index("none")
    for name, value in (("employer", EMPLOYER.index("none")), ("hours", 0), ("tenure", 0)):
        assert (raw[name][idle] == value).all()
    assert (raw["employer"][~idle] != 0).all()
    assert (raw["hours"][~idle] >= 5).all()
    assert idle[age > 66].mean() > 0.5 > idle[(age > 25) & (age < 60)].mean() + 0.3
    crafts = raw["occupation"] == list(WORK).index("crafts")
    assert raw["sex"][crafts].mean() > 0.65
    doctors, unschooled = (raw["education"] == SCHOOLS.index(s) for s in ("doctor", "none"))
    professional = raw["occupation"] == list(WORK).index("professional")
    assert professional[doctors].mean() > professional[unschooled].mean() + 0.2


def test_census_numbers_differ_in_skew(raw):
    about_40 = (np.abs(raw["age"] - 40) <= 2) & (raw["education"] == 3)
    assert (raw["savings"][about_40] == 0).mean() == pytest.approx(1 / (1 + np.exp(-0.4)), abs=0.04)
    assert raw["savings"].max() > 20 * raw["savings"].mean()
    working = raw["hours"] > 0
    assert 0.45 < (raw["hours"][working] == 40).mean() < 0.55
    assert np.median(raw["tenure"]) < raw["tenure"].mean() - 1


def test_pay_is_linear_in_what_it_says(raw):
    few = {name: value[:1000] for name, value in raw.items()}
    schooled = {**few, "education": few["education"] + 1}
    assert pay(schooled) - pay(few) == pytest.approx(0.35)
    longer = {**few, "hours": few["hours"] + 10}
    assert pay(longer) - pay(few) == pytest.approx(0.2)


def test_a_quarter_earns_more_and_a_model_finds_them():
    data = build(Census(private=2000, public=500, evaluation=10, heldout=800))
    everybody = np.concatenate([getattr(data, part).y for part in PARTS])
    assert everybody.mean() == pytest.approx(0.25, abs=0.002)
    model = LogisticRegression(max_iter=500).fit(data.private.x, data.private.y)
    assert model.score(data.heldout.x, data.heldout.y) > 0.79


def test_notes_fill_their_templates():
    text, kind = notes(3000, np.random.default_rng(0))
    assert np.bincount(kind) / 3000 == pytest.approx([1 / len(TEMPLATES)] * len(TEMPLATES), abs=0.03)
    for sentence, k in zip(text[:200], kind[:200]):
        fixed = [w for w in list(TEMPLATES.values())[k].split() if not w.startswith("{")]
        assert set(fixed) <= set(sentence.split())
        assert 12 <= len(sentence.split()) <= 14
    words = {w for t in text for w in t.split()}
    assert 550 < len(words) < 650
    assert words <= {w for slot in SLOTS.values() for w in slot} | {w for t in TEMPLATES.values() for w in t.split()}


def test_names_and_drugs_are_many_and_different():
    assert len(set(NAMES)) == len(NAMES) == 128
    assert len(set(DRUGS)) == len(DRUGS) == 80
    for words in SLOTS.values():
        assert len(set(words)) == len(words)
