"""Runs that are killed, stopped and doubled, and results that are damaged: what is there stays, and the same command
makes the rest."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest

from inversionbench.workflow.cli import main

pytestmark = pytest.mark.workflow
AGAIN = "and run the same command again"
REST = {"attack": 1, "evaluate": 1, "survey": 1, "sync": 1}


@contextmanager
def in_a_job(copy):
    """The workflow, started in a process group of its own, while it runs the only attack that is left to do."""
    folder = copy.folder / "results/mini"
    for path in (*folder.rglob("photos_convnet"), folder / "survey"):
        if "targets" not in path.parts:
            shutil.rmtree(path)
    with (copy.folder / "log").open("w") as log:
        process = subprocess.Popen(copy.command(), cwd=copy.folder, env=copy.env, stdout=log, stderr=log,
                                   start_new_session=True, preexec_fn=heed)  # fmt: skip
        try:
            deadline = time.monotonic() + 300
            while not list(folder.glob("logs/attack/photos_convnet/*/none.log")):
                assert process.poll() is None, (copy.folder / "log").read_text()[-3000:]
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield process
        finally:
            with_all(process, signal.SIGKILL)
            process.wait()


def heed():
    """What a shell starts in the background does not heed Ctrl-C, nor does what that starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def with_all(process, number):
    """Send a signal to a workflow and its jobs, as a terminal does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def snapshot(folder):
    """Every file with its size and time."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_second_run_is_refused_and_a_killed_one_continues_to_the_same_results(finished):
    before, folder = finished.results(), finished.folder / "results/mini"
    with in_a_job(finished) as process:
        with_all(process, signal.SIGSTOP)  # the second one has all the time it wants to do harm
        there = snapshot(finished.folder / "results")
        refused = finished.snakemake(check=False)
        assert snapshot(finished.folder / "results") == there
    assert refused.returncode == 1
    assert "Traceback" not in refused.stdout
    assert "Directory cannot be locked" in refused.stdout
    assert "--unlock" in refused.stdout
    assert not list(folder.glob("cells/photos_convnet/*"))
    assert "Directory cannot be locked" in finished.snakemake(check=False).stdout  # the lock of the dead one
    finished.snakemake("--unlock")
    assert finished.planned() == REST  # and no target again
    finished.snakemake()
    assert finished.results() == before
    assert finished.planned() == {}


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_leaves_whole_results_and_no_lock(finished, how):
    before, results = finished.results(), finished.folder / "results"
    with in_a_job(finished) as process:
        with_all(process, signal.SIGINT) if how == "Ctrl-C" else process.send_signal(signal.SIGTERM)
        assert process.wait(120) != 0
    assert not list(results.rglob(".*.part*"))
    there = {path: found for path, found in finished.results().items() if not path.startswith("survey")}
    assert there == {path: before[path] for path in there}  # the table is of what is there
    planned = finished.planned()  # not locked
    assert planned.keys() <= REST.keys()
    assert {"evaluate", "survey", "sync"} <= planned.keys()


DAMAGED = (
    ("data/photos/public/x.npy", "attack photos_convnet/inverting_gradients/none"),
    ("data/dosing/dataset.json", "train-evaluator dosing_imputers"),
    ("targets/photos_convnet/none/0/released/0.pt", "attack photos_convnet/inverting_gradients/none"),
    ("evaluators/dosing_imputers/evaluator.pt", "evaluate dosing_tree/mi_attribute"),
    ("reconstructions/dosing_tree/mi_attribute/none/0/0/reconstruction.pt", "evaluate dosing_tree/mi_attribute"),
    ("cells/photos_convnet/inverting_gradients/none/0/0/record.json", "survey"),
    ("cells/photos_convnet/inverting_gradients/none/0/0/gallery.npz", "survey"),
)


def test_a_damaged_file_is_named_with_what_to_delete(finished, monkeypatch, capfd):
    """Each is emptied or cut off, in a whole run, and found by the next step that reads it; where a step makes more
    than the folder of the file, what it says to delete is enough to have it made again."""
    monkeypatch.chdir(finished.folder)
    for number, (path, command) in enumerate(DAMAGED):
        file = finished.folder / "results/mini" / path
        whole = file.read_bytes()
        file.write_bytes(whole[: number % 2 * len(whole) // 2])
        assert main(command.split()) == 2, path
        said = capfd.readouterr().err.strip().splitlines()[-1]
        found = re.fullmatch(rf"inversionbench: (\S+) is damaged \(.+\). Delete (\S+) {AGAIN}", said)
        assert found, said
        assert found[1] in str(file)
        file.write_bytes(whole)
        rule = {"reconstruction.pt": "attack", "record.json": "evaluate"}.get(file.name)
        if rule:
            shutil.move(finished.folder / found[2], aside := finished.folder / "aside")
            assert finished.planned(found[2]) == {rule: 1}
            shutil.move(aside, finished.folder / found[2])
