"""Text, sound, graph and tables from small files in their official layout."""

import hashlib
from functools import partial

import numpy as np
import official_tables as make
import pytest
from official_layouts import built

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.data import sources
from inversionbench.data.base import PARTS
from inversionbench.data.prepare import prepare


@pytest.fixture
def ready(tmp_path, monkeypatch):
    """name, layout, options -> prepared data set."""

    def run(name, layout, **options):
        result = built(name, layout, tmp_path / "root", monkeypatch)
        cls = registry.get("dataset", name)
        if name == "bank_marketing":
            for attribute in ("_member_sha256", "_full_sha256"):
                monkeypatch.setattr(cls, attribute, hashlib.sha256(result).hexdigest())
        return prepare(name, options, tmp_path / "root", tmp_path / "out")

    return run


@pytest.mark.parametrize("file", ["SMSSpamCollection", "sms.tsv"])
def test_sms(ready, file):
    data = ready("sms_spam", partial(make.sms_spam, name=file), min_words=3)
    assert data.meta["repeated"] == 2
    assert sum(data.meta["split"]["counts"].values()) == 60  # 63 lines, 2 repeated, 1 too short
    for part in PARTS:
        found = getattr(data, part)
        for text, y, line in zip(found.x, found.y, found.extra["index"]):
            assert str(text) == f'message "{line}" with\ttab and £ {line * line}'
            assert y == (line % 5 == 0)
    np.testing.assert_array_equal(data.private.y[:4], [0, 1, 0, 1])
    assert data.meta["split"]["counts"]["public"] == 30


@pytest.mark.parametrize("packed", [False, True])
def test_fsdd(ready, packed):
    data = ready("fsdd", partial(make.fsdd, packed=packed), samples=2000)
    assert (data.classes, data.shape) == (4, (2000,))
    assert data.meta["split"]["counts"] == {"private": 80, "public": 100, "evaluation": 80, "heldout": 40}
    takes = {"private": {5, 24}, "public": {0, 5, 24, 25, 49}, "evaluation": {25, 49}, "heldout": {0}}
    speakers = {}
    for part in PARTS:
        found = getattr(data, part)
        told = np.rint(np.array(found.x[:, :3]) * 32768).astype(int)
        speakers[part] = {(int(i), int(y), int(who)) for i, y, who in zip(found.extra["identity"], found.y, told[:, 0])}
        np.testing.assert_array_equal(told[:, 1], found.extra["digit"])
        assert set(told[:, 2].tolist()) == takes[part]
        np.testing.assert_array_equal(found.extra["length"], np.minimum(300 + 60 * told[:, 2], 2000))
        assert all((clip[n:] == 0).all() and clip[n - 3 : n].any() for clip, n in zip(found.x, found.extra["length"]))
    assert speakers["private"] == speakers["evaluation"] == speakers["heldout"]
    names = sorted("abcdef")
    assert all(ord(names[i]) == who for part in PARTS for i, _, who in speakers[part])
    assert {y for _, y, _ in speakers["public"]} == {-1}


def test_fsdd_without_public_speakers(ready):
    data = ready("fsdd", make.fsdd, public_speakers=0)
    assert (data.classes, len(data.public)) == (6, 0)
    with pytest.raises(UserError, match=r"public_speakers: 0\.\.4, got 5"):
        ready("fsdd", make.fsdd, public_speakers=5)


def test_cora_parts_are_disjoint_induced_graphs(ready, tmp_path):
    data = ready("cora", make.cora, nodes=20)
    whole = prepare("cora", {"nodes": 0}, tmp_path / "root", tmp_path / "whole").private
    truth = whole.extra["adjacency"]
    nodes = np.concatenate([getattr(data, part).extra["index"] for part in PARTS])
    assert sorted(nodes.tolist()) == list(range(120))
    for part in PARTS:
        found = getattr(data, part)
        rows = found.extra["index"]
        np.testing.assert_array_equal(found.extra["adjacency"], truth[np.ix_(rows, rows)])
        np.testing.assert_array_equal(found.y, rows % 7)
        np.testing.assert_array_equal(np.asarray(found.x)[np.arange(len(rows)), 50 + rows % 7], 9)
        assert found.extra["train"].sum() == len(rows) // 3
        assert not (found.extra["train"] & found.extra["test"]).any()
    assert data.meta["edges"]["private"] == data.private.extra["adjacency"].sum() // 2 >= 19  # grown: connected


def test_cora_whole_graph(ready):
    data = ready("cora", make.cora, nodes=0)
    edges = data.private.extra["adjacency"]
    assert (edges == edges.T).all()
    assert not np.diag(edges).any()
    assert all(edges[a, (a + 1) % 120] for a in range(120))
    np.testing.assert_array_equal(np.flatnonzero(data.private.extra["test"]), np.arange(100, 120))
    assert [len(getattr(data, part)) for part in PARTS] == [120, 0, 0, 0]


def test_cora_files_that_do_not_belong_together(ready, tmp_path, monkeypatch):
    def layout(folder, rng):
        make.cora(folder, rng)
        (folder / "ind.cora.test.index").write_text("1\n2\n")

    with pytest.raises(UserError, match="do not belong together"):
        ready("cora", layout)


BANKS = {"additional": "additional", "full": ".gz", "full plain": "", "full_zip": "zip"}


@pytest.mark.parametrize("release", BANKS)
def test_bank(ready, release):
    data = ready("bank_marketing", partial(make.bank_marketing, kind=BANKS[release]))
    assert data.meta["release"] == release.split()[0]
    assert data.meta["title"].startswith("Bank Marketing (bank-")
    assert data.meta["repeated"] == 2
    assert sum(data.meta["split"]["counts"].values()) == 150
    names = [column["name"] for column in data.meta["columns"]]
    assert len(names) == (19 if release == "additional" else 15)
    assert not {"duration", "subscribed", "y"} & set(names)
    _table_is_what_it_says(data)
    ages = np.concatenate([_age(data, part) for part in PARTS])
    y = np.concatenate([getattr(data, part).y for part in PARTS])
    np.testing.assert_allclose(np.sort(ages), np.arange(18, 168), atol=1e-3)
    np.testing.assert_array_equal(y, np.rint(ages - 18) % 8 == 0)
    for part in PARTS:  # 19 of 150 subscribed, in each part the same share
        found = getattr(data, part).y
        assert abs(found.sum() - 19 / 150 * len(found)) < 1


def _age(data, part):
    column = next(c for c in data.meta["columns"] if c["name"] == "age")
    return column["mean"] + column["std"] * getattr(data, part).x[:, column["slice"][0]]


def _table_is_what_it_says(data):
    """Slices cover x, one-hots agree with the codes, numbers are standardised on public rows."""
    columns = data.meta["columns"]
    assert [c["slice"][0] for c in columns] == [0, *[c["slice"][1] for c in columns[:-1]]]
    assert columns[-1]["slice"][1] == data.shape[0]
    for column in columns:
        low, high = column["slice"]
        if column["kind"] == "categorical":
            for part in PARTS:
                block = np.asarray(getattr(data, part).x[:, low:high])
                np.testing.assert_array_equal(block.sum(1), 1)
                np.testing.assert_array_equal(block.argmax(1), getattr(data, part).extra[column["name"]])
        else:
            np.testing.assert_allclose(np.mean(data.public.x[:, low]), 0, atol=1e-5)
    assert data.meta["sensitive"] in [c["name"] for c in columns if c["sensitive"]]


def test_bank_with_another_question(ready):
    data = ready("bank_marketing", make.bank_marketing, response="job", sensitive="education", drop=[])
    assert data.meta["class_names"] == ["admin.", "services", "unknown"]
    assert "subscribed" in data.private.extra
    assert "job" not in data.private.extra
    assert "duration" in [c["name"] for c in data.meta["columns"]]


def test_bank_with_a_number_as_class(ready):
    data = ready("bank_marketing", make.bank_marketing, response="age")
    counts = np.bincount(data.public.y)
    assert len(counts) == data.classes == 4
    assert counts.max() - counts.min() <= 1


BAD = [
    ({"response": "jop"}, "did you mean 'job'"),
    ({"drop": ["durration"]}, "did you mean 'duration'"),
    ({"sensitive": "job", "response": "job"}, "different columns"),
    ({"sensitive": "age"}, "no categorical column 'age'"),
    ({"public_share": 0.9}, "sum to 1.1"),
    ({"private": -1}, "got -1"),
]


@pytest.mark.parametrize(("options", "text"), BAD)
def test_bank_options_that_make_no_sense(ready, options, text):
    with pytest.raises(UserError, match=text):
        ready("bank_marketing", make.bank_marketing, **options)


def test_bank_member_with_another_content(tmp_path, monkeypatch):
    built("bank_marketing", make.bank_marketing, tmp_path / "root", monkeypatch)
    with pytest.raises(UserError, match=r"member 'bank-additional/bank-additional-full\.csv' has sha256"):
        prepare("bank_marketing", {}, tmp_path / "root", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_equal_inputs_stay_in_one_part(ready):
    """Without age and the other numbers most records repeat; none may be both private and public."""
    numbers = ["age", "campaign", "pdays", "previous", "duration", "balance", "day"]
    data = ready("bank_marketing", partial(make.bank_marketing, kind=".gz"), drop=[*numbers, "housing", "loan"])
    rows = {part: {row.tobytes() for row in np.asarray(getattr(data, part).x)} for part in PARTS}
    assert sum(len(r) for r in rows.values()) == len(set.union(*rows.values()))
    assert sum(data.meta["split"]["counts"].values()) == 150
    assert len(set.union(*rows.values())) < 140


def test_adult(ready):
    data = ready("adult", make.adult)
    assert data.meta["class_names"] == ["<=50K", ">50K"]
    assert data.meta["repeated"] == 1
    assert sum(data.meta["split"]["counts"].values()) == 150
    _table_is_what_it_says(data)
    work = next(c for c in data.meta["columns"] if c["name"] == "workclass")
    assert work["values"] == ["Private", "State-gov", "unknown"]
    for part in PARTS:
        i = np.rint(_age(data, part) - 17).astype(int)
        np.testing.assert_array_equal(getattr(data, part).y, i % 4 == 0)
        np.testing.assert_array_equal(getattr(data, part).extra["workclass"], i % 3)
    assert {"fnlwgt", "relationship"}.isdisjoint(c["name"] for c in data.meta["columns"])


def test_adult_whole_has_the_14_inputs_of_tableak(ready):
    columns = ready("adult", make.adult, drop=[]).meta["columns"]
    assert len(columns) == 14
    assert "income" not in [c["name"] for c in columns]
    assert sum(c["kind"] == "categorical" for c in columns) == 8


def test_small_tables_are_refused_where_checksums_are_known(tmp_path):
    layouts = {"sms_spam": make.sms_spam, "cora": make.cora, "adult": make.adult,
               "fsdd": partial(make.fsdd, packed=True), "bank_marketing": make.bank_marketing}  # fmt: skip
    for name, layout in layouts.items():
        layout(tmp_path / name, np.random.default_rng(7))
        with pytest.raises(UserError, match="expected"):
            prepare(name, {}, tmp_path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(layouts)


def test_hostile_pickle_in_place_of_a_cora_file(ready, tmp_path):
    def layout(folder, rng):
        make.cora(folder, rng)
        (folder / "ind.cora.graph").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR.")

    with pytest.raises(UserError, match=r"os\.system"):
        ready("cora", layout)
    assert not (tmp_path / "run").exists()
    assert sources.present(registry.get("dataset", "cora")(), "cora", tmp_path / "root")
