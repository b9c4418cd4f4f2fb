"""Records: complete, finite, written last, and equal bytes for equal content."""

from __future__ import annotations

import copy
import json
import math

import pytest

from inversionbench.core import records


def record(**changes):
    """A small valid record."""
    base = {
        "key": "s/a/none@0/0", "track": "tabular", "scenario": "s", "dataset": "dosing", "model": "mlp",
        "attack": "a", "method": "mi_attribute", "level": "LO", "defense": "none", "strength": 0.0, "seed": 0,
        "scale": "smoke", "kind": "attack", "status": "ok", "inert": False,
        "metrics": {
            "accuracy": {"values": [0.5, 1.0], "mean": 0.75, "median": 0.75, "low": 0.5, "high": 1.0, "n": 2}
        },
        "groups": [0, 1], "unavailable": {}, "controls": {}, "curves": {}, "utility": {"accuracy": 0.9},
        "cost": {"queries": 6}, "knowledge": {"used": ["records"]}, "parameters": {}, "facts": {},
        "provenance": {},
    }  # fmt: skip
    return copy.deepcopy(base) | changes


def test_a_valid_record_passes():
    records.check(record())


@pytest.mark.parametrize("name", records.REQUIRED)
def test_every_required_field_is_missed(name):
    bad = record()
    del bad[name]
    with pytest.raises(ValueError, match=name):
        records.check(bad)


def test_unknown_status():
    with pytest.raises(ValueError, match="finished"):
        records.check(record(status="finished"))


@pytest.mark.parametrize("status", [s for s in records.STATUS if s != "ok"])
def test_a_status_that_is_not_ok_needs_a_reason(status):
    with pytest.raises(ValueError, match="without a reason"):
        records.check(record(status=status))
    records.check(record(status=status, reason="the data set is not here", metrics={}, groups=[]))


def test_unknown_kind():
    with pytest.raises(ValueError, match="kind"):
        records.check(record(kind="baseline"))


def test_as_many_values_as_subjects():
    bad = record()
    bad["groups"] = [0, 1, 2]
    with pytest.raises(ValueError, match="2 values and n 2 for 3 subjects"):
        records.check(bad)


@pytest.mark.parametrize("part", ["values", "mean", "median", "low", "high", "n"])
def test_a_metric_has_all_its_parts(part):
    bad = record()
    del bad["metrics"]["accuracy"][part]
    with pytest.raises(ValueError, match=part):
        records.check(bad)


def test_a_metric_is_either_there_or_unavailable():
    with pytest.raises(ValueError, match="accuracy"):
        records.check(record(unavailable={"accuracy": "no judge"}))


def test_write_and_load(tmp_path):
    records.write(tmp_path / "cells" / "c", record(), {"seconds": 1.5})
    found = records.find(tmp_path)
    assert found == [tmp_path / "cells" / "c"]
    (back,) = records.load(found)
    assert back["timing"] == {"seconds": 1.5}
    assert back["schema"] == records.SCHEMA
    assert {k: back[k] for k in record()} == record()


def test_half_a_folder_left_by_a_kill_holds_no_records(tmp_path):
    for name in ("attack", ".attack.4711.part"):
        records.write(tmp_path / "cells" / "s" / name / "none" / "0" / "0", record())
    assert records.find(tmp_path) == [tmp_path / "cells" / "s" / "attack" / "none" / "0" / "0"]


def test_a_bad_record_writes_nothing(tmp_path):
    with pytest.raises(ValueError):
        records.write(tmp_path / "c", record(status="?"), {})
    assert records.find(tmp_path) == []
    assert not (tmp_path / "c").exists()


def test_nan_is_refused_and_the_old_record_kept(tmp_path):
    records.write(tmp_path / "c", record(), {"seconds": 1.5})
    old = (tmp_path / "c" / "record.json").read_bytes()
    with pytest.raises(ValueError, match=r"utility\.accuracy is not what its schema says"):
        records.write(tmp_path / "c", record(utility={"accuracy": math.nan}), {"seconds": 2.5})
    assert (tmp_path / "c" / "record.json").read_bytes() == old
    assert {p.name for p in (tmp_path / "c").iterdir()} == {"record.json", "timing.json"}


def test_the_record_is_written_last(tmp_path):
    with pytest.raises(TypeError):
        records.write(tmp_path / "c", record(facts={"odd": object()}), {"seconds": 1.5})
    assert records.find(tmp_path) == []


def test_equal_records_give_equal_bytes_and_digest(tmp_path):
    turned = dict(reversed(record().items()))
    records.write(tmp_path / "a", record(), {"seconds": 1.0})
    records.write(tmp_path / "b", turned, {"seconds": 2.0})
    a, b = (tmp_path / name / "record.json" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    first, second = records.load([tmp_path / "a", tmp_path / "b"])
    assert records.digest(first) == records.digest(second) == records.digest(json.loads(a.read_text()))
    assert records.digest(first) != records.digest(first | {"seed": 1})


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("metrics", [], "metrics is list, expected mapping"),
        ("groups", None, "groups is NoneType"),
        ("strength", "0.9", "strength is str"),
        ("seed", True, "seed is bool"),
        ("track", "<script>", "track is no name"),
        ("utility", {"accuracy": "high"}, "utility.accuracy"),
        ("curves", {"psnr": [[1, None]]}, "curves.psnr"),
        ("metrics", {"accuracy": None}, "metrics.accuracy is NoneType"),
        ("metrics", {"accuracy": {"values": ["a", 1], "mean": 1, "median": 1, "low": 0, "high": 1, "n": 2}},
         "no finite"),
        ("metrics", {"accuracy": {"values": [0.5, 1], "mean": 0.9, "median": 0.75, "low": 0, "high": 1, "n": 2}},
         "says mean"),
        ("metrics", {"accuracy": {"values": [0.5, 1], "mean": 0.75, "median": 0.75, "low": 1, "high": 0, "n": 2}},
         "ends before"),
    ],
)  # fmt: skip
def test_a_record_edited_by_hand_is_refused_with_the_field(field, value, says):
    with pytest.raises(ValueError, match=says):
        records.check(record(**{field: value}))
