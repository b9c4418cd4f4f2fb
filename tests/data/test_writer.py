"""The writer of prepared folders: what it refuses, that it is atomic, that it takes up cut-off work."""

import json
from pathlib import Path

import numpy as np
import pytest

from inversionbench.core.errors import UserError
from inversionbench.data import _checks
from inversionbench.data._writer import Writer
from inversionbench.data.base import PARTS, Card, load

CARD = Card(name="Test", modality="image", source="here", terms="none")


def images(n, seed=0, side=4):
    return np.random.default_rng(seed).integers(0, 256, (n, 1, side, side), dtype=np.uint8)


def fill(writer, skip=(), **change):
    for i, part in enumerate(PARTS):
        if part not in skip:
            x, y, extra = change.get(part, (images(6, i), np.arange(6) % 2, {}))
            writer.put(part, x, y, **extra)
    writer.meta(classes=2)


def write(out, key="k", **change):
    with Writer(out, "test", key) as writer:
        fill(writer, **change)
        writer.finish(CARD, options={}, seed=0)
    return load(out)


def test_written_folder_loads_and_says_what_it_is(tmp_path):
    data = write(tmp_path / "d")
    assert data.name == "test"
    assert data.shape == (1, 4, 4)
    assert data.classes == 2
    assert data.meta["title"] == "Test"
    assert data.meta["split"]["counts"] == dict.fromkeys(PARTS, 6)
    np.testing.assert_array_equal(data.heldout.x, images(6, 3))
    assert all(isinstance(getattr(data, part).x, np.memmap) for part in PARTS)  # opened, not read
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == sorted([*PARTS, "dataset.json"])


def test_digest_follows_every_array(tmp_path):
    first = write(tmp_path / "a").digest
    assert write(tmp_path / "b").digest == first
    x = images(6, 0)
    x[3, 0, 1, 1] ^= 1
    y = np.arange(6) % 2
    assert write(tmp_path / "c", private=(x, y, {})).digest != first
    assert write(tmp_path / "e", private=(images(6, 0), 1 - y, {})).digest != first
    assert write(tmp_path / "f", public=(images(6, 1), y, {"age": np.arange(6)})).digest != first


def test_split_digest_is_told_by_the_index_alone(tmp_path):
    def parts(side, shift=0):
        index = np.arange(6)
        return {
            part: (images(6, i, side), index % 2, {"index": index + 6 * i + shift * (i == 0)})
            for i, part in enumerate(PARTS)
        }

    small, large, other = (
        write(tmp_path / n, **parts(*a)).meta for n, a in (("a", (4,)), ("b", (8,)), ("c", (4, 100)))
    )
    assert small["split"]["digest"] == large["split"]["digest"] != other["split"]["digest"]
    assert small["digest"] != large["digest"]


Y = np.arange(6) % 2
BAD = {
    "float64": ((images(6) / 255.0, Y, {}), "expected uint8"),
    "three dimensions": ((images(6)[:, 0], Y, {}), "expected uint8"),
    "int32 labels": ((images(6), Y.astype(np.int32), {}), "expected int64"),
    "label too large": ((images(6), Y + 1, {}), "expected 0..1"),
    "private label -1": ((images(6), Y - 1, {}), "expected 0..1"),
    "short y": ((images(6), Y[:5], {}), "expected length 6"),
    "short extra": ((images(6), Y, {"age": np.arange(5)}), "expected length 6"),
    "objects": ((images(6), Y, {"age": np.array([{}] * 6)}), "expected numbers"),
    "nan extra": ((images(6), Y, {"age": np.full(6, np.nan)}), "NaN"),
    "other shape": ((images(6, side=5), Y, {}), "private is"),
    "public in private": ((images(6, 1)[::-1], Y, {}), "identical"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_parts_are_refused_and_leave_nothing(tmp_path, case):
    private, text = BAD[case]
    with pytest.raises(UserError, match=text):
        write(tmp_path / "d", private=private)
    assert list(tmp_path.iterdir()) == []


def test_infinite_table_is_refused(tmp_path):
    table = np.zeros((3, 2), np.float32)
    table[1, 1] = np.inf
    with pytest.raises(UserError, match=r"'x' holds NaN or infinite"), Writer(tmp_path / "d", "t") as writer:
        writer.put("private", table, np.zeros(3, np.int64))


def test_missing_part_and_unknown_part_are_refused(tmp_path):
    with Writer(tmp_path / "d", "t") as writer:
        fill(writer, skip=("heldout",))
        with pytest.raises(UserError, match="part 'heldout': array 'x'"):
            writer.finish(CARD)
    with pytest.raises(ValueError, match="did you mean 'public'"), Writer(tmp_path / "d", "t") as writer:
        writer.put("pubic", images(2), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="digest"), Writer(tmp_path / "d", "t") as writer:
        writer.meta(classes=2, digest="x")


def test_identities_must_be_disjoint(tmp_path):
    same = {"private": (images(6, 0), Y, {"identity": np.arange(6)})}
    with pytest.raises(UserError, match="1 identities are both"):
        write(tmp_path / "d", **same, public=(images(6, 1), Y, {"identity": np.arange(5, 11)}))
    write(tmp_path / "d", **same, public=(images(6, 1), Y, {"identity": np.arange(6, 12)}))


def test_shared_samples_can_be_dropped_from_public_and_are_counted(tmp_path):
    both = np.concatenate([images(6, 1), images(6, 0)[2:4]])
    with Writer(tmp_path / "d", "t") as writer:
        writer.drop_shared()
        fill(writer, public=(both, np.arange(8) % 2, {"index": np.arange(8)}))
        writer.finish(CARD)
    data = load(tmp_path / "d")
    assert data.meta["dropped_public"] == 2
    np.testing.assert_array_equal(data.public.extra["index"], np.arange(6))
    np.testing.assert_array_equal(data.public.x, images(6, 1))
    np.testing.assert_array_equal(data.public.y, Y)


def test_equal_hashes_of_different_samples_are_no_match(tmp_path, monkeypatch):
    monkeypatch.setattr(_checks, "hashes", lambda x: np.zeros(len(x), np.uint64))
    assert write(tmp_path / "d").meta["identical"] == {"public": 0, "evaluation": 0, "heldout": 0}


def test_text_and_empty_parts(tmp_path):
    none = np.empty(0, np.int64)
    with Writer(tmp_path / "d", "t") as writer:
        writer.put("public", ["a", "longer text"], np.array([-1, -1]))
        for part in ("private", "evaluation", "heldout"):
            writer.put(part, np.empty(0, np.str_), none)
        writer.meta(classes=0)
        writer.finish(CARD)
    data = load(tmp_path / "d")
    assert list(data.public.x) == ["a", "longer text"]
    assert len(data.private) == 0


def stream(writer, decode):
    arrays = {}
    for i, part in enumerate(PARTS):
        arrays[part] = writer.array(part, "x", (600, 1, 4, 4), np.uint8)
        writer.side(part, y=np.full(600, -1 if part == "public" else i % 2))
    jobs = ((part, row, lambda p=part, r=row: decode(p, r)) for part in PARTS for row in range(600))
    writer.fill(arrays, jobs)
    writer.meta(classes=2)


def pixel(part, row):
    return np.random.default_rng([PARTS.index(part), row]).integers(0, 256, (1, 4, 4), dtype=np.uint8)


def test_cut_off_stream_is_taken_up_where_it_stopped(tmp_path):
    calls = []

    def cut(part, row):
        calls.append((part, row))
        if len(calls) == 1500:
            raise KeyboardInterrupt
        return pixel(part, row)

    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "d", "t", "key") as writer:
        stream(writer, cut)
    assert not (tmp_path / "d").exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".d.")
    assert not (left / "dataset.json").exists()

    again = []
    with Writer(tmp_path / "d", "t", "key") as writer:
        stream(writer, lambda part, row: again.append((part, row)) or pixel(part, row))
        writer.finish(CARD)
    assert set(calls) | set(again) == {(p, r) for p in PARTS for r in range(600)}
    assert 2400 - 1500 < len(again) < 2400 - 1500 + 300  # at most one block is done twice
    with Writer(tmp_path / "whole", "t", "key") as writer:
        stream(writer, pixel)
        writer.finish(CARD)
    assert load(tmp_path / "d").digest == load(tmp_path / "whole").digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "whole"]


def test_remembered_checksums_survive_a_cut(tmp_path):
    sums = {"large.tar": {"size": 1}}

    def leave(error, *told):
        with Writer(tmp_path / "d", "t", "key") as writer:
            assert writer.remember("verified", *told) == sums
            raise error

    with pytest.raises(KeyboardInterrupt):
        leave(KeyboardInterrupt(), sums)
    assert not (tmp_path / "d").exists()
    with pytest.raises(UserError, match="bad file"):
        leave(UserError("bad file"))
    assert list(tmp_path.iterdir()) == []


def test_other_options_do_not_take_up_the_work_and_clear_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "d", "t", "one") as writer:
        stream(writer, lambda part, row: (_ for _ in ()).throw(KeyboardInterrupt))
    again = []
    with Writer(tmp_path / "d", "t", "two") as writer:
        stream(writer, lambda part, row: again.append(row) or pixel(part, row))
        writer.finish(CARD)
    assert len(again) == 2400
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_stream_with_missing_rows_is_refused(tmp_path):
    with Writer(tmp_path / "d", "t") as writer:
        x = writer.array("private", "x", (5, 1, 4, 4), np.uint8)
        jobs = [("private", i, lambda: images(1)[0]) for i in (0, 1, 4)]
        with pytest.raises(UserError, match="2 of 5 samples"):
            writer.fill({"private": x}, jobs)
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_folder_that_was_there(tmp_path):
    first = write(tmp_path / "d").digest
    with pytest.raises(UserError):
        write(tmp_path / "d", private=(images(6), Y + 1, {}))
    assert load(tmp_path / "d").digest == first
    second = write(tmp_path / "d", private=(images(6, 9), Y, {})).digest
    assert load(tmp_path / "d").digest == second != first


def test_nothing_else_is_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    (tmp_path / "file").write_text("words")
    for out in ("mine", "file"):
        with pytest.raises(UserError, match="holds something else"):
            write(tmp_path / out)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "words"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".snakemake_timestamp").touch()
    write(tmp_path / "empty")


def test_two_processes_do_not_write_one_folder(tmp_path):
    with Writer(tmp_path / "d", "t", "key") as first:
        with pytest.raises(UserError, match="another process"), Writer(tmp_path / "d", "t", "key"):
            pass
        fill(first)
        first.finish(CARD)
    assert json.loads((tmp_path / "d" / "dataset.json").read_text())["key"] == "key"
    assert Path(tmp_path / "d" / "private" / "x.npy").exists()
