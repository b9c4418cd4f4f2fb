"""Atomic writes: whole or not at all, whatever interrupts them."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys

import pytest

from inversionbench.core.files import atomic, atomic_folder, read_json, visible, write_json, write_text


def everything(folder):
    """Names of all that lies in a folder, hidden files included."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def interrupted(context, error=None):
    """Write half a file (or a file of a folder) inside `context`, then raise."""
    with context as part:
        (part / "new.txt" if part.is_dir() else part).write_text("ne")
        if error:
            raise error


def test_writes_and_makes_folders(tmp_path):
    write_text(tmp_path / "a" / "b" / "note.txt", "hello")
    assert (tmp_path / "a" / "b" / "note.txt").read_text() == "hello"
    assert everything(tmp_path) == ["a", "a/b", "a/b/note.txt"]


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    """numpy and pandas choose or append a format by it."""
    with atomic(tmp_path / "table.npy") as part:
        assert part.suffix == ".npy"
        assert part.parent == tmp_path
        part.write_bytes(b"1")


def test_an_exception_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="half"):
        interrupted(atomic(path), RuntimeError("half way"))
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["note.txt"]


def test_an_exception_without_an_old_file_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(atomic(tmp_path / "note.txt"), KeyboardInterrupt())
    assert everything(tmp_path) == []


def test_a_body_that_writes_nothing_is_an_error(tmp_path):
    write_text(tmp_path / "note.txt", "old")
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "note.txt"):
        pass
    assert (tmp_path / "note.txt").read_text() == "old"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with atomic(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


KILLED = """
import os, signal, sys
from inversionbench.core.files import {how}
with {how}(sys.argv[1]) as part:
    {write}
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("how", "write"),
    [("atomic", "part.write_text('ne')"), ("atomic_folder", "(part / 'one.txt').write_text('ne')")],
)
def test_a_kill_never_leaves_half_a_file(tmp_path, how, write):
    path = tmp_path / "kept"
    if how == "atomic":
        write_text(path, "old")
    else:
        write_text(path / "one.txt", "old")
    before = {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    code = KILLED.format(how=how, write=write)
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert {p: p.read_text() for p in before} == before
    left = [p for p in everything(tmp_path) if p not in {str(b.relative_to(tmp_path)) for b in before}]
    assert all(name.split("/")[0].startswith(".") for name in left if name != "kept")  # hidden, never the name


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "cell"
    write_text(path / "old.txt", "old")
    with atomic_folder(path) as part:
        (part / "new.txt").write_text("new")
        assert everything(path) == ["old.txt"]
    assert everything(tmp_path) == ["cell", "cell/new.txt"]


def test_an_exception_keeps_the_old_folder(tmp_path):
    path = tmp_path / "cell"
    write_text(path / "old.txt", "old")
    with pytest.raises(RuntimeError):
        interrupted(atomic_folder(path), RuntimeError())
    assert everything(tmp_path) == ["cell", "cell/old.txt"]


def test_a_failed_rename_keeps_the_old_folder(tmp_path, monkeypatch):
    path = tmp_path / "cell"
    write_text(path / "old.txt", "old")
    real = os.replace

    def refuse(source, target):
        if str(source).endswith(".part"):
            raise OSError("no space left")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="space"):
        interrupted(atomic_folder(path))
    assert everything(tmp_path) == ["cell", "cell/old.txt"]


def test_leftovers_of_a_dead_run_are_not_mixed_in(tmp_path):
    path = tmp_path / "cell"
    write_text(tmp_path / f".cell.{os.getpid()}.part" / "stale.txt", "stale")
    with atomic_folder(path) as part:
        (part / "new.txt").write_text("new")
    assert everything(path) == ["new.txt"]


def test_what_a_kill_left_is_swept_and_what_another_process_writes_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getppid()):
        write_text(tmp_path / f".cell.{pid}.part" / "record.json", "half")
    write_text(tmp_path / f".cells.{gone.pid}.part" / "record.json", "of another folder")
    interrupted(atomic_folder(tmp_path / "cell"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f".cell.{os.getppid()}.part", f".cells.{gone.pid}.part", "cell"
    ]
    assert visible(tmp_path, "*.*") == [tmp_path / "cell" / "new.txt"]


def test_equal_values_give_equal_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1, "y": [1.5, None]})
    write_json(tmp_path / "b.json", {"y": [1.5, None], "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"x": 1, "y": [1.5, None]}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_know_are_refused(tmp_path, bad):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": [bad]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert everything(tmp_path) == ["a.json"]
