"""Records to MLflow: written once, changed where they changed, and never a reason to fail."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from survey_cells import empty, record, write_cell

from inversionbench.workflow import tracking


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    root = tmp_path / "results" / "smoke" / "cells"
    write_cell(root, record("photos", "dlg", "dgc", 0.9, 0))
    write_cell(root, record("photos", "dlg", "dgc", 0.9, 1))
    write_cell(root, record("portraits", "rlb_mi", "none", 0.0, 0, **empty("denied", "not granted")))
    return root


def counted(added: int = 0, replaced: int = 0, unchanged: int = 0, removed: int = 0) -> dict:
    return {"status": "ok", "reason": "", "added": added, "replaced": replaced, "unchanged": unchanged,
            "removed": removed}


def test_runs_follow_the_records(cells: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/db/mlflow.db"
    assert tracking.sync(cells, uri, "smoke") == counted(added=3)
    assert tracking.sync(cells, uri, "smoke") == counted(unchanged=3)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    federated = client.get_experiment_by_name("inversionbench-federated").experiment_id
    classifier = client.get_experiment_by_name("inversionbench-classifier").experiment_id

    def runs() -> dict:
        return {r.data.tags["run_key"]: r for r in client.search_runs([federated, classifier])}

    cell = record("photos", "dlg", "dgc", 0.9, 0)
    run = runs()[cell["key"]]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["psnr"] == cell["metrics"]["psnr"]["mean"]
    assert run.data.metrics["spread/psnr.low"] == cell["metrics"]["psnr"]["low"]
    assert run.data.metrics["control/mean_image.psnr"] == 12.5
    assert run.data.params["attack.steps"] == "300"
    assert run.data.params["scenario.model.name"] == "convnet"
    curve = client.get_metric_history(run.info.run_id, "curve/psnr")
    assert [(m.step, m.value) for m in curve] == [tuple(point) for point in cell["curves"]["psnr"]]
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["gallery.png"]
    assert (run.data.tags["strength"], run.data.tags["knows_defense"]) == ("0.9", "False")
    about = client.get_experiment(federated).tags
    assert about["mlflow.experimentKind"] == "custom_model_development"  # else the page of chat models opens
    assert about["mlflow.experiment.primaryMetric.name"] == "psnr"
    view = json.loads(about["mlflow.sharedViewState.leakage"])
    assert view["orderByKey"] == "metrics.`psnr`"
    for column in view["selectedColumns"]:  # of what every run has
        kind, _, name = column.partition(".")
        assert name.strip("`") in getattr(run.data, kind)
    denied = runs()["portraits/rlb_mi/none/0/0"]
    assert denied.info.status == "KILLED"
    assert "agreement" not in denied.data.metrics

    # one record changes, one run was cut short before its digest was set, one record goes
    write_cell(cells, record("photos", "dlg", "dgc", 0.9, 0, facts={"changed": 1}))
    client.delete_tag(runs()["photos/dlg/dgc/0.9/1"].info.run_id, "record_sha")
    (cells / "portraits/rlb_mi/none/0/0/record.json").unlink()
    write_cell(cells, record("portraits", "gmi", "none", 0.0, 0), pictures=False)
    assert tracking.sync(cells, uri, "smoke") == counted(added=1, replaced=2, removed=1)
    assert set(runs()) == {"photos/dlg/dgc/0.9/0", "photos/dlg/dgc/0.9/1", "portraits/gmi/none/0/0"}
    assert len(client.search_runs([federated, classifier])) == 3

    # another scale in the same database is left alone
    laptop = tmp_path / "results" / "laptop" / "cells"
    write_cell(laptop, record("photos", "dlg", "dgc", 0.9, 0, scale="laptop"))
    assert tracking.sync(laptop, uri, "laptop") == counted(added=1)
    assert tracking.sync(cells, uri, "smoke") == counted(unchanged=3)
    assert len(client.search_runs([federated, classifier])) == 4

    # a record that the parameters no longer ask for lies on, and its run goes; so does that of a whole track
    assert tracking.sync(cells, uri, "smoke", {"photos/dlg/dgc/0.9/0"}) == counted(unchanged=1, removed=2)
    assert tracking.sync(laptop, uri, "laptop") == counted(unchanged=1)


def test_a_server_that_does_not_answer_is_asked_twice_and_said(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MLflow's own default is seven more tries, with longer and longer waits between them."""
    asked = []

    class Broken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        log_message = do_POST = lambda self, *_: None

    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        counts = tracking.sync(cells, f"http://127.0.0.1:{server.server_port}", "smoke")
        server.shutdown()
    assert counts["status"] == "failed"
    assert counts["added"] == 0
    assert "is not up to date" in capsys.readouterr().out
    assert len(asked) == 2
    assert len(set(asked)) == 1


def test_no_records_change_nothing(tmp_path: Path) -> None:
    counts = tracking.sync(tmp_path, f"sqlite:///{tmp_path}/mlflow.db", "smoke")
    assert counts["status"] == "failed"
    assert "no records" in counts["reason"]
    assert not (tmp_path / "mlflow.db").exists()


def test_what_mlflow_cannot_hold_is_made_to_fit(cells: Path) -> None:
    cell = record("photos", "dlg", "none", 0.0, 0)
    cell["parameters"]["attack"] = {"long": "x" * 10000, "odd@name": 1}
    cell["metrics"]["psnr"]["low"] = float("nan")
    parameters = dict(tracking._parameters(cell))
    assert len(parameters["attack.long"]) == tracking.LONGEST
    assert parameters["attack.odd_name"] == "1"
    names = [name for name, _, _ in tracking._metrics({**cell, "timing": {}})]
    assert "spread/psnr.low" not in names
    assert "spread/psnr.high" in names


def test_a_server_that_drips_is_given_up(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes within every timeout of a single read; the whole never ends."""
    monkeypatch.setattr(tracking, "PATIENCE", 1.0)
    asked, done = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            asked.set()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            with contextlib.suppress(OSError):
                while not done.wait(0.2):
                    connection.sendall(b"x")
            connection.close()

        threading.Thread(target=drip, daemon=True).start()
        counts = tracking.sync(cells, f"http://127.0.0.1:{server.getsockname()[1]}", "smoke")
        done.set()
    assert asked.is_set()
    assert counts["reason"] == "TimeoutError: nothing was written for 1 s"


def test_clones_that_share_a_store_leave_each_other_alone(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    first, second = (tmp_path / name / "smoke" / "cells" for name in ("a", "b"))
    write_cell(first, record("photos", "dlg", "none", 0.0, 0))
    write_cell(second, record("photos", "dlg", "dgc", 0.9, 0))
    assert tracking.sync(first, uri, "smoke") == counted(added=1)
    assert tracking.sync(second, uri, "smoke") == counted(added=1)
    assert tracking.sync(first, uri, "smoke") == counted(unchanged=1)


def test_a_kill_while_the_store_is_made_leaves_none(tmp_path: Path, cells: Path) -> None:
    """What a killed process wrote so far has another name, and the next sync takes it away."""
    database = tmp_path / "store" / "mlflow.db"
    pid = subprocess.Popen(["true"])
    pid.wait()
    database.parent.mkdir()
    left = database.with_name(f".mlflow.db.{pid.pid}.part.db")
    left.write_bytes(b"SQLite format 3\x00 half of it")
    assert tracking.sync(cells, f"sqlite:///{database}", "smoke")["status"] == "ok"
    assert not left.exists()
    database.write_bytes(b"no database at all" * 100)
    counts = tracking.sync(cells, f"sqlite:///{database}", "smoke")
    assert counts["status"] == "failed"
    assert "delete it and sync again" in counts["reason"]
