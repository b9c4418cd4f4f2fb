"""What a full disk, a closed folder, a kill and damaged files leave: one line that helps, and nothing half written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from inversionbench.core import files
from inversionbench.core.errors import UserError
from inversionbench.core.files import atomic, atomic_folder, write_json
from inversionbench.data import _pickles
from inversionbench.metrics._read import read

PYTHON = [sys.executable, "-c"]
FULL = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from inversionbench.core.files import atomic, atomic_folder
from inversionbench.core.errors import UserError
out = Path(sys.argv[1])
try:
    if sys.argv[2] == "file":
        with atomic(out) as part:
            part.write_bytes(b"x" * 200_000)
    else:
        with atomic_folder(out) as part:
            (part / "small").write_bytes(b"x")
            (part / "large").write_bytes(b"x" * 200_000)
except UserError as error:
    print(error)
"""
SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # of a test in the background it is ignored
from pathlib import Path
from inversionbench.core.files import atomic, atomic_folder
with (atomic if sys.argv[2] == "file" else atomic_folder)(Path(sys.argv[1])) as part:
    target = part if sys.argv[2] == "file" else part / "inside"
    target.write_bytes(b"new, and not all of it")
    print("writing", flush=True)
    time.sleep(60)
"""


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {p.name: p.read_bytes() for p in files}


@pytest.fixture(params=["file", "folder"])
def written(request, tmp_path) -> tuple[Path, str]:
    """A whole result that is there already."""
    path = tmp_path / "result"
    if request.param == "file":
        path.write_bytes(b"whole")
    else:
        path.mkdir()
        (path / "inside").write_bytes(b"whole")
    return path, request.param


def test_a_full_disk_is_one_line_and_leaves_what_was_there(written):
    path, kind = written
    before = content(path)
    done = subprocess.run([*PYTHON, FULL, str(path), kind], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {path}: ")
    assert "the same command continues" in done.stdout
    assert content(path) == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_while_writing_leaves_what_was_there(written, how):
    path, kind = written
    before = content(path)
    process = subprocess.Popen([*PYTHON, SLOW, str(path), kind], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(how)
    process.wait()
    process.stdout.close()
    assert content(path) == before
    assert files.visible(path.parent, "result") == [path]
    with atomic(path) if kind == "file" else atomic_folder(path) as part:  # the next writer clears up
        (part if kind == "file" else part / "inside").write_bytes(b"newer")
    assert set(content(path).values()) == {b"newer"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_where_nothing_may_be_written_it_says_so(tmp_path, monkeypatch, code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=f"cannot write .*: {os.strerror(code)}"):
        write_json(tmp_path / "a" / "b.json", 1)
    with pytest.raises(UserError, match=f"cannot write .*: {os.strerror(code)}"), atomic_folder(tmp_path / "c"):
        pass


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a"):
        (tmp_path / "nothing").read_text()


def test_a_command_says_it_in_one_line(tmp_path):
    """/sys takes no new folder, whoever asks."""
    params = json.dumps({
        "scale": "closed", "results": "/sys/results", "datasets": {"dosing": {}}, "attacks": {},
        "scenarios": {"tree": {"track": "tabular", "dataset": "dosing", "model": {"name": "tree"}, "subjects": 200}},
    })  # fmt: skip
    (tmp_path / "params.yaml").write_text(params)
    done = subprocess.run([sys.executable, "-m", "inversionbench", "prepare", "dosing"], cwd=tmp_path, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("inversionbench: cannot open or write /sys/results")
    assert "Traceback" not in done.stderr


# --- files of others ------------------------------------------------------------------------------------------


def test_an_array_that_expands_beyond_reason_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("x.npy", b"\0" * (1 << 26))
    with pytest.raises(UserError, match="expands more than"):
        read(path)
    assert path.stat().st_size < 1 << 17
    np.savez_compressed(tmp_path / "fine.npz", x=np.random.default_rng(0).random((3, 1, 8, 8), np.float32))
    assert read(tmp_path / "fine.npz")[0].shape == (3, 1, 8, 8)


@pytest.mark.parametrize("named", ["numpy ndarray", "copyreg _reconstructor"])
def test_a_pickle_may_not_change_what_is_imported(named):
    """A class or function, then BUILD with {"shape": 1}."""
    evil = "c{}\n{}\n}}X\5\0\0\0shapeK\1sb.".format(*named.split()).encode()
    with pytest.raises(UserError, match=f"changes '{named.split()[1]}'"):
        _pickles.loads(evil, "batch", _pickles.ARRAYS | _pickles.SPARSE)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 3}', "\0\0", '{"metrics": null}'])
def test_a_damaged_record_names_what_to_delete(tmp_path, text):
    from inversionbench.survey import collect

    folder = tmp_path / "cells" / "s" / "a" / "none" / "0" / "0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(text)
    with pytest.raises(UserError, match=f"{folder}/record.json is damaged .* Delete {folder.parents[2]} and run"):
        collect.read(tmp_path / "cells")
