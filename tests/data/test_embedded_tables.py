"""Tables: the encoding and its description, and what the sensitive columns do."""

from __future__ import annotations

import numpy as np
import pytest
from embedded_build import build, same
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from inversionbench.core.errors import UserError
from inversionbench.data import _table
from inversionbench.data.base import PARTS
from inversionbench.data.breast_cancer import TWIN, BreastCancer
from inversionbench.data.dosing import COLUMNS, Dosing, dose, patients

SOURCES = {"breast_cancer": BreastCancer(), "dosing": Dosing()}


@pytest.fixture(scope="module", params=SOURCES)
def data(request):
    return build(SOURCES[request.param])


def _column(data, name):
    return next(c for c in data.meta["columns"] if c["name"] == name)


def test_slices_tile_x(data):
    stops = [0] + [c["slice"][1] for c in data.meta["columns"]]
    assert [c["slice"][0] for c in data.meta["columns"]] == stops[:-1]
    assert data.shape == (stops[-1],)
    for name in PARTS:
        part = getattr(data, name)
        assert part.x.dtype == np.float32
        assert len(part) == getattr(SOURCES[data.name], name)
        assert set(part.y) == set(range(data.classes))


def test_one_hot_blocks_match_the_codes(data):
    for column in data.meta["columns"]:
        block = data.private.x[:, slice(*column["slice"])]
        if column["kind"] == "categorical":
            assert block.shape[1] == len(column["values"])
            assert set(np.unique(block)) == {0.0, 1.0}
            assert (block.sum(1) == 1).all()
            assert np.array_equal(_table.codes(data.private.x, column), data.private.extra[column["name"]])
        else:
            assert block.shape[1] == 1
            assert column["values"] == []


def test_numbers_are_scaled_by_the_public_rows(data):
    numeric = [c for c in data.meta["columns"] if c["kind"] == "numeric"]
    places = [c["slice"][0] for c in numeric]
    assert np.abs(data.public.x[:, places].mean(0)).max() < 1e-4
    assert data.public.x[:, places].std(0) == pytest.approx(1, abs=1e-3)
    assert np.abs(data.private.x[:, places].mean(0)).max() > 1e-3
    for c in numeric:
        raw = c["mean"] + c["std"] * data.public.x[:, c["slice"][0]]
        assert raw.min() == pytest.approx(c["low"], abs=1e-3 * c["std"])
        assert raw.max() == pytest.approx(c["high"], abs=1e-3 * c["std"])


def test_same_seed_same_bytes(data):
    source = SOURCES[data.name]
    assert same(data, build(source))
    assert not same(data, build(source, seed=1))


def test_no_record_in_two_parts(data):
    rows = np.concatenate([getattr(data, name).x for name in PARTS])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_sensitive_column_is_declared(data):
    column = _column(data, data.meta["sensitive"])
    assert column["sensitive"]
    shares = np.bincount(data.private.extra[column["name"]]) / len(data.private)
    assert (shares > 0.1).all()
    other = _table.with_code(data.private.x, column, 1)
    assert (_table.codes(other, column) == 1).all()
    outside = np.ones(data.shape[0], bool)
    outside[slice(*column["slice"])] = False
    assert np.array_equal(other[:, outside], data.private.x[:, outside])


def test_too_many_rows_are_refused():
    with pytest.raises(UserError, match="569"):
        build(BreastCancer(private=500))
    with pytest.raises(UserError, match="heldout 0"):
        build(Dosing(heldout=0))


def test_unknown_sensitive_column_is_refused():
    raw = {"a": np.zeros(4, int), "b": np.arange(4.0)}
    columns = (_table.Column("a", ("x", "y")), _table.Column("b"))
    with pytest.raises(UserError, match="'b'"):
        _table.write(None, raw, columns, np.zeros(4, int), {}, ("one",), "b")


def test_breast_cancer_texture():
    data = build(BreastCancer())
    assert TWIN not in {c["name"] for c in data.meta["columns"]}
    assert len(data.meta["columns"]) == 29
    assert (np.bincount(data.public.extra["mean_texture"]) == 45).all()  # quartiles of the public rows
    for name, c in ((c["name"], c) for c in data.meta["columns"] if c["kind"] == "numeric"):
        twin = np.corrcoef(data.public.x[:, c["slice"][0]], data.public.extra["mean_texture"])[0, 1]
        assert abs(twin) < 0.6, name


def test_dosing_follows_its_equations():
    raw = patients(60_000, np.random.default_rng(0))
    for a, f in enumerate((0.25, 0.4, 0.6)):
        assert raw["genotype"][raw["ancestry"] == a].mean() == pytest.approx(2 * f, abs=0.03)
    assert np.bincount(raw["ancestry"]) / 60_000 == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    more = {**raw, "genotype": raw["genotype"] + 1}
    assert dose(more, 0.8) - dose(raw, 0.8) == pytest.approx(-0.8)
    assert {c.name for c in COLUMNS} == set(raw)


def test_genotype_changes_the_dose_class():
    data = build(Dosing())
    assert np.bincount(np.concatenate([getattr(data, p).y for p in PARTS])).tolist() == [1600] * 5
    mean = _mean_class_by_genotype(data.public)
    assert mean[0] > mean[1] + 0.5 > mean[2] + 1.0
    flat = _mean_class_by_genotype(build(Dosing(effect=0.0)).public)  # the same patients
    assert max(flat) - min(flat) < 0.25


def _mean_class_by_genotype(part):
    """Among the patients of one ancestry: across ancestries, weight differs as genotype does."""
    own = part.extra["ancestry"] == 1
    return [part.y[own & (part.extra["genotype"] == g)].mean() for g in range(3)]


def test_dosing_can_be_inverted_and_texture_hardly():
    """Share of records whose predicted class depends on the sensitive value: most against few."""
    share = {}
    for name, source in SOURCES.items():
        data = build(source)
        model = LogisticRegression(max_iter=300).fit(data.private.x, data.private.y)
        column = _column(data, data.meta["sensitive"])
        guesses = np.stack([
            model.predict(_table.with_code(data.heldout.x, column, v)) for v in range(len(column["values"]))
        ])
        share[name] = (guesses != guesses[0]).any(0).mean()
    assert share["dosing"] > 0.6
    assert share["breast_cancer"] < 0.2


def test_overfitted_model_gives_more_about_members():
    """The setting's point: asked with the true dose, it tells members' genotypes better than others'."""
    data = build(Dosing(private=400, public=400, evaluation=1, heldout=400))
    model = RandomForestClassifier(20, random_state=0).fit(data.private.x, data.private.y)
    column = _column(data, "genotype")

    def hits(part):
        scores = [model.predict_proba(_table.with_code(part.x, column, v)) for v in range(3)]
        likely = np.stack([s[np.arange(len(part)), part.y] for s in scores], 1)
        truth = part.extra["genotype"]
        return np.mean([(likely.argmax(1) == truth)[truth == g].mean() for g in range(3)])

    assert hits(data.private) > hits(data.heldout) + 0.1
    assert hits(data.heldout) > 0.38
