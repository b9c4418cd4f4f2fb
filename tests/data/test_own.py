"""Data of one's own without code: pictures in folders, arrays, tables; and the workflow's plan follows their files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inversionbench.core.errors import UserError
from inversionbench.data import load
from inversionbench.data.prepare import MissingData, prepare
from inversionbench.plan.dag import Plan
from inversionbench.workflow.cli import main

PARTS = ("private", "public", "evaluation", "heldout")


@pytest.fixture
def staff(tmp_path: Path) -> Path:
    """Eight people with 10 pictures each; a person is a red level, a picture a blue one."""
    for person in range(8):
        folder = tmp_path / "staff" / f"person {person}"
        folder.mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (20, 16), (20 + 20 * person, 0, 10 * i)).save(folder / f"{i}.png")
    return tmp_path / "staff"


def made(name: str, out: Path, **options):
    return prepare(name, options, None, out, progress=False)


def people(part) -> set[int]:
    return {int(v) for v in np.unique(part.x[:, 0])}


def test_people_of_a_folder_are_private_or_public_never_both(staff, tmp_path):
    data = made("image_folder", tmp_path / "out", path=str(staff), resolution=16, private_classes=3)
    assert data.shape == (3, 16, 16)
    assert data.classes == 3
    parts = [getattr(data, name) for name in PARTS]
    assert [len(p) for p in parts] == [15, 50, 9, 6]
    assert people(data.private) == people(data.evaluation) == people(data.heldout)
    assert not people(data.private) & people(data.public)
    assert set(data.public.y) == {-1}
    assert sum(len(p) for p in parts) == len({tuple(x[:, 0, 0]) for p in parts for x in p.x})  # no picture twice
    again = made("image_folder", tmp_path / "again", path=str(staff), resolution=16, private_classes=3)
    assert again.digest == data.digest


def test_samples_of_every_class_may_be_split_instead(staff, tmp_path):
    data = made("image_folder", tmp_path / "out", path=str(staff), resolution=16, split="sample")
    assert data.shape == (3, 16, 16)
    assert [len(getattr(data, name)) for name in PARTS] == [16, 24, 24, 16]
    assert people(data.private) == people(data.public)
    assert len(people(data.private)) == data.classes == 8


def test_arrays_are_taken_in_any_usual_order_of_axes(tmp_path):
    y = np.arange(6).repeat(10) * 7
    x = np.random.default_rng(0).integers(0, 256, (60, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    data = made("arrays", tmp_path / "out", path=str(tmp_path / "a.npz"))
    assert data.shape == (3, 12, 12)
    assert data.classes == 3
    row = data.private.extra["index"][0]
    assert np.array_equal(data.private.x[0], x[row].transpose(2, 0, 1))
    np.savez(tmp_path / "b.npz", x=x[..., 0], y=y)
    assert made("arrays", tmp_path / "grey", path=str(tmp_path / "b.npz")).shape == (1, 12, 12)


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = ["patient;age;smoker;weight;outcome"]
    for i in range(300):
        age, smoker = rng.integers(20, 90), rng.choice(["yes", "no", ""])
        rows.append(f"p{i // 3};{age};{smoker};{50 + 0.1 * i:.2f};{'ill' if age > 50 else 'well'}")
    (tmp_path / "patients.csv").write_text("\ufeff" + "\n".join(rows) + "\n")
    return tmp_path / "patients.csv"


def test_a_table_keeps_the_rows_of_one_person_together(patients, tmp_path):
    options = {"response": "outcome", "sensitive": "smoker", "person": "patient"}
    data = made("table", tmp_path / "out", path=str(patients), **options)
    columns = {c["name"]: c for c in data.meta["columns"]}
    assert list(columns) == ["age", "smoker", "weight"]
    assert columns["smoker"]["values"] == ["no", "unknown", "yes"]
    assert columns["age"]["kind"] == columns["weight"]["kind"] == "numeric"
    assert data.meta["class_names"] == ["ill", "well"]
    # weights tell rows apart; three rows of one patient lie in one part
    lines = [line.split(";") for line in patients.read_text().splitlines()[1:]]
    of = {f"{float(weight):.2f}": name for name, _, _, weight, _ in lines}
    places = [columns["weight"]["slice"][0]]
    found = {}
    for part in PARTS:
        raw = columns["weight"]["mean"] + columns["weight"]["std"] * getattr(data, part).x[:, places[0]].astype(float)
        found[part] = {of[f"{value:.2f}"] for value in raw}
    for one in PARTS:
        for other in PARTS:
            assert one == other or not found[one] & found[other]
    assert sum(map(len, found.values())) == 100


def test_parquet_is_the_same_table(patients, tmp_path):
    import pandas as pd

    frame = pd.read_csv(patients, sep=";", encoding="utf-8-sig")
    frame.to_parquet(tmp_path / "patients.parquet")
    options = {"response": "outcome", "sensitive": "smoker"}
    first = made("table", tmp_path / "a", path=str(patients), **options, drop=["patient"])
    second = made("table", tmp_path / "b", path=str(tmp_path / "patients.parquet"), **options, drop=["patient"])
    assert np.allclose(first.private.x, second.private.x)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("image_folder", {"path": "staff", "private_classes": 8}, "leaves none for public"),
        ("image_folder", {"path": "staff", "least": 11}, "private_classes"),
        ("image_folder", {"path": "staff/person 1"}, "one folder of pictures for each class; outside of any: 0.png"),
        ("image_folder", {"path": "staff", "evaluation_share": 0.9}, "shares must"),
        ("arrays", {"path": "patients.csv"}, "no .npz file"),
        ("table", {"path": "patients.csv", "response": "outcom", "sensitive": "smoker"}, "did you mean 'outcome'"),
        ("table", {"path": "patients.csv", "response": "outcome", "sensitive": "smoke"}, "did you mean 'smoker'"),
        ("table", {"path": "patients.csv", "response": "outcome", "sensitive": "age"}, None),
        ("table", {"path": "patients.csv", "response": "outcome", "sensitive": "smoker", "person": "who"}, "'who'"),
        ("table", {"path": "staff/person 1/0.png", "response": "a", "sensitive": "b"}, "no table that can be read"),
    ],
)
def test_what_does_not_fit_is_one_line(staff, patients, tmp_path, monkeypatch, name, options, says):
    monkeypatch.chdir(tmp_path)
    if says is None:  # a number with many values may be asked for; it becomes a category
        made(name, tmp_path / "out", **options)
        return
    with pytest.raises(UserError, match=says):
        made(name, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_path_that_is_not_there_says_which(tmp_path):
    with pytest.raises(MissingData, match="nowhere"):
        made("image_folder", tmp_path / "out", path=str(tmp_path / "nowhere"))


def test_a_changed_picture_is_prepared_again(staff):
    raw = {
        "scale": "own", "datasets": {"staff": {"source": "image_folder", "path": str(staff)}},
        "scenarios": {"s": {"track": "federated", "dataset": "staff", "model": {"name": "mlp"}}},
        "attacks": {"inverting_gradients": {}},
    }  # fmt: skip
    before = Plan(raw).prepare("staff")
    assert Plan(raw).prepare("staff") == before
    os.utime(staff / "person 3" / "1.png", (1, 1))
    assert Plan(raw).prepare("staff") != before


def test_the_command_line_knows_that_these_are_yours(capsys):
    assert main(["data", "list"]) == 0
    assert "yours" in capsys.readouterr().out
    assert main(["data", "show", "image_folder"]) == 0
    assert "path: str (required)" in capsys.readouterr().out


def test_prepared_folders_open_as_any_other(staff, tmp_path):
    data = made("image_folder", tmp_path / "out", path=str(staff), resolution=16, grey=True)
    assert data.shape == (1, 16, 16)
    assert load(tmp_path / "out").digest == data.digest
