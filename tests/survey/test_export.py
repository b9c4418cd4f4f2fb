"""A run as a folder for git: complete, small, the same twice, without what names this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from survey_cells import all_records, record, write_cell

from inversionbench.core.errors import UserError
from inversionbench.core.files import read_json, write_json
from inversionbench.plan import cells as planning
from inversionbench.plan import params as parameters
from inversionbench.survey import build, calls, collect, export, machine
from inversionbench.workflow.cli import main

LOG = """
SNAKEMAKE
=========
  Date: {date}
  Command: /home/someone/project/.venv/bin/snakemake --cores 2 --configfile workflow/scales/smoke.yaml
  Config file(s): [PosixPath('{overlay}'), 'params.yaml']
  Config MD5: {config}

Provided cores: 2
[Sat Nov 21 12:50:15 2026]
{done} of {jobs} steps (10%) done
"""


@pytest.fixture
def run(survey: build.Survey, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the synthetic run, with parameters that plan its cells and one more scenario on real photographs."""
    folder = tmp_path / "results" / "smoke"
    shutil.copytree(cells.parent, folder)
    monkeypatch.chdir(tmp_path)
    scenarios = {"photos": SimpleNamespace(dataset="photos"), "portraits": SimpleNamespace(dataset="lfw")}
    raw = {"scale": "smoke", "data": {"root": "/mnt/someone/data"}}
    given = SimpleNamespace(scale="smoke", numerics="portable", seed=0, folder=Path("results/smoke"),
                            scenarios=scenarios, raw=raw,
                            data_root=Path("/mnt/someone/data"), combined=lambda entry: (),
                            dataset=lambda entry: (entry, {}))  # fmt: skip
    keys = [r["key"] for r in all_records()]
    group = SimpleNamespace(cells=lambda: [(key, key, 0) for key in keys])
    monkeypatch.setattr(parameters, "read", lambda path: given)
    monkeypatch.setattr(planning, "groups", lambda params: [group])
    monkeypatch.setattr(planning, "parameters", chosen)
    write_json(folder / "params.json", raw)
    write_json(folder / "timings" / machine.FILE, {
        "commit": "c" * 40, "changed": ["src/x.py"], "cells": 5, "same_code": 4, "processor": "Some CPU", "cores": 2,
        "memory_gib": 8.0, "gpus": [], "system": "Linux x86_64", "python": "3.11.7", "late": False})  # fmt: skip
    return folder


def chosen(params: object, group: object, strength: str) -> dict[str, object]:
    """What was chosen for a synthetic cell, whose key stands in the place of its strength."""
    return next(r["parameters"] for r in all_records() if r["key"] == strength)


def digest(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def log(tmp_path: Path, name: str, **values: object) -> None:
    overlay = tmp_path / "smoke.yaml"
    overlay.write_text("# small\nscale: smoke\n")
    path = tmp_path / calls.LOGS / f"{name}.snakemake.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    default = {"date": "2026-11-21 12:40:15", "overlay": overlay, "config": "a" * 32, "done": 10, "jobs": 10}
    path.write_text(LOG.format(**{**default, **values}))


def again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables once more from the records, without the figures."""
    shutil.rmtree(run / "survey")
    for module in (build, build.sheets):
        monkeypatch.setattr(module, "draw", lambda *_: [])
    build.write(build.make(collect.read(run / "cells"), "smoke"), run / "survey", run)


def test_the_folder_holds_the_tables_and_what_the_run_was(run: Path, tmp_path: Path) -> None:
    log(tmp_path, "1")
    out = export.export(run, tmp_path / "published", called=tmp_path)
    names = {p.name for p in out.iterdir()}
    assert {"README.md", "survey.md", "attacks.csv", "defenses.csv", "metrics.json", "params.json"} <= names
    page = (out / "README.md").read_text()
    for said in ("c" * 40 + ", with changes in 1 files: src/x.py", "4 of 5 records", "Some CPU, 2 cores, 8 GiB, no GPU",
                 "python 3.11.7, torch 2.13.0", "400 MiB", "10 min 0 s in one call of Snakemake on 2 cores, 10 jobs",
                 "uv run snakemake --cores 2 --configfile workflow/scales/smoke.yaml", "d" * 64):  # fmt: skip
        assert said in page, said
    timed = sum(1 for _ in (run / "timings").rglob("*.json")) - 1
    assert f"({timed} timed" in page
    assert export._time(1.2 * timed) in page


def test_cells_without_an_answer_stand_with_their_reasons(run: Path, tmp_path: Path) -> None:
    page = (export.export(run, tmp_path / "published", called=tmp_path) / "README.md").read_text()
    found = all_records()
    answered = sum(r["status"] == "ok" for r in found)
    assert f"{len(found)} cells, {answered} with an answer" in page
    count = sum(r["attack"] == "ppa" for r in found)
    assert f"| {count} | unavailable | the prior stylegan is not on this machine |" in page
    assert "wall time | not known" in page


def test_links_to_records_and_folders_of_a_machine_do_not_get_out(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = record("portraits", "ppa", "none", 0.0, 0, status="unavailable", metrics={}, groups=[], controls={},
                  curves={}, unavailable={}, cost={}, reason=f"{tmp_path}/x and /mnt/someone/data/celeba")  # fmt: skip
    write_cell(run / "cells", cell)
    again(run, monkeypatch)
    assert "](../cells/" in (run / "survey/survey.md").read_text()
    out = export.export(run, tmp_path / "published", called=tmp_path)
    texts = {name: data.decode() for name, data in digest(out).items() if not name.endswith(".png")}
    assert not [name for name, text in texts.items() if "../cells" in text or "someone" in text
                or str(tmp_path) in text]  # fmt: skip
    assert "| seeds |" in texts["survey.md"]
    assert " 0 1 |" in texts["survey.md"]
    assert "./x and $INVERSIONBENCH_DATA/celeba" in texts["README.md"]


def test_the_same_run_gives_the_same_bytes_and_keeps_the_notes(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "published"
    first = digest(export.export(run, out, called=tmp_path))
    (out / "notes.md").write_text("Read this.\n")
    (out / "left.md").write_text("of an older export")
    second = digest(export.export(run, out, called=tmp_path))
    assert second.pop("notes.md") == b"Read this.\n"
    assert "left.md" not in second
    assert b"[notes.md](notes.md)" in second.pop("README.md")
    first.pop("README.md")
    assert second == first


def test_pictures_of_data_that_is_not_embedded_stay(run: Path, tmp_path: Path) -> None:
    out = export.export(run, tmp_path / "published", called=tmp_path)
    drawn = {p.name for p in (run / "survey/figures").glob("*.png")}
    shown = {p.name for p in (out / "figures").glob("*.png")}
    real = {name for name in drawn if name.startswith("gallery-portraits")}
    assert real
    assert shown == drawn - real
    assert f"{len(real)} galleries of data that is not embedded" in (out / "README.md").read_text()


def test_figures_are_smaller_and_stay_what_they_are(run: Path, tmp_path: Path) -> None:
    out = export.export(run, tmp_path / "published", called=tmp_path)
    for path in (out / "figures").glob("*.png"):
        drawn = run / "survey/figures" / path.name
        before, after = (np.asarray(Image.open(p).convert("RGB"), int) for p in (drawn, path))
        assert before.shape == after.shape
        assert np.abs(before - after).mean() < (4 if "gallery" in path.name else 1)  # of 255; galleries of noise
        assert path.stat().st_size <= drawn.stat().st_size


def test_what_is_too_large_is_left_out_and_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = len((run / "survey/defenses.csv").read_text().splitlines()) - 1
    room = 40_000 + export.README + sum((run / "survey" / name).stat().st_size for name in ("attacks.csv", "survey.md"))
    monkeypatch.setattr(export, "LARGEST", 30_000)
    monkeypatch.setattr(export, "ALL", room)
    out = export.export(run, tmp_path / "published", called=tmp_path)
    rows = (out / "defenses.csv").read_text().splitlines()[1:]
    assert 0 < len(rows) < whole
    assert sum(p.stat().st_size for p in out.rglob("*") if p.name != "README.md" and p.is_file()) <= room
    page = (out / "README.md").read_text()
    assert f"rows of defenses.csv beyond the headline metric ({whole} in all)" in page
    assert "to keep the folder small" in page
    shown, drawn = ({p.stem for p in (folder / "figures").glob("gallery-p*-*.png")} for folder in (out, run / "survey"))
    assert len(shown) < len(drawn)


@pytest.mark.recorded  # which of the synthetic attacks is the strongest hangs on the draw
def test_galleries_of_the_strongest_attack_go_first(run: Path) -> None:
    ranks = export._ranks(export.read(run))
    assert [name for name, rank in ranks.items() if rank == 0] == [
        "gallery-photos-inverting_gradients", "gallery-portraits-plg_mi"]  # fmt: skip
    best, other = "gallery-photos-inverting_gradients", "gallery-portraits-plg_mi"
    names = ["gallery-photos-dlg", "study-x", other, best, "heat-a"]
    paths = export._ordered({Path(f"{name}.png") for name in names}, ranks)
    assert [path.stem for path in paths] == ["study-x", "heat-a", best, other, names[0]]


def test_an_incomplete_run_is_refused_unless_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run / "cells/photos/dlg/none/0/1")
    with pytest.raises(UserError, match=r"1 of \d+ cells have no record \(the first is photos/dlg/none/0/1\)"):
        export.export(run, tmp_path / "published", called=tmp_path)
    with pytest.raises(UserError, match="other records"):  # the tables still show it
        export.export(run, tmp_path / "published", incomplete=True, called=tmp_path)
    again(run, monkeypatch)
    out = export.export(run, tmp_path / "published", incomplete=True, called=tmp_path)
    assert "| 1 | no record | planned, and not run |" in (out / "README.md").read_text()


def test_a_run_that_is_none_or_not_to_be_trusted_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "survey" / machine.PROBLEMS).write_text("x differs\n")
    with pytest.raises(UserError, match="not to be trusted"):
        export.export(run, tmp_path / "published")
    shutil.rmtree(run / "survey")
    with pytest.raises(UserError, match="no tables"):
        export.export(run, tmp_path / "published")
    with pytest.raises(UserError, match="no run in"):
        export.export(tmp_path / "results" / "other", tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_the_command_writes_beside_the_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    read = parameters.read
    monkeypatch.setattr(parameters, "read", lambda path, *overlays: read(path))
    assert main(["export"]) == 0
    assert capsys.readouterr().out == "results/published/smoke\n"
    assert (tmp_path / "results/published/smoke/README.md").is_file()


def test_calls_that_belong_to_another_run_do_not_count(tmp_path: Path) -> None:
    log(tmp_path, "1", config="b" * 32)
    log(tmp_path, "2", done=4)  # killed
    log(tmp_path, "3", date="2026-11-21 12:49:15", done=6, jobs=6)
    log(tmp_path, "4", date="2026-11-21 12:50:00", done=1, config="c" * 32)
    (tmp_path / calls.LOGS / "5.snakemake.log").write_text("Building DAG of jobs...\n")
    found = calls.of_run(tmp_path, "smoke")
    assert [(call.jobs, call.seconds, call.whole) for call in found] == [(4, 600, False), (6, 60, True)]
    assert calls.of_run(tmp_path, "laptop") == []


def test_elapsed_time_is_read_where_snakemake_says_it(tmp_path: Path) -> None:
    log(tmp_path, "1")
    path = tmp_path / calls.LOGS / "1.snakemake.log"
    path.write_text(path.read_text() + "Elapsed time: 1 day, 2:03:04.5\n")
    call = calls.read(path)
    assert call is not None
    assert call.seconds == 86400 + 2 * 3600 + 3 * 60 + 4.5


def test_the_machine_is_described_and_changes_are_seen(tmp_path: Path) -> None:
    here = machine.machine()
    assert here["cores"] >= 1
    assert here["processor"]
    assert machine.gpus("NVIDIA A\nNVIDIA B\n") == ["NVIDIA A", "NVIDIA B"]
    assert machine.commit(tmp_path) == {"commit": None, "changed": []}

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments], cwd=tmp_path,
                       check=True, capture_output=True)  # fmt: skip

    git("init", "-q")
    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / "README.md").write_text("x\n")
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    (tmp_path / "README.md").write_text("y\n")  # changes no number
    found = machine.commit(tmp_path)
    assert len(found["commit"]) == 40
    assert found["changed"] == []
    (tmp_path / "params.yaml").write_text("a: 2\n")
    assert machine.commit(tmp_path) == {**found, "changed": ["params.yaml"]}
    (tmp_path / "inner").mkdir()
    assert machine.commit(tmp_path / "inner")["commit"] is None  # what lies around a folder is not its commit


def test_parameters_that_are_not_those_of_the_records_are_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "parameters", lambda *of: {**chosen(*of), "seed": 7})
    with pytest.raises(UserError, match=r"was made with other parameters than those of .*params\.json"):
        export.export(run, tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_records_of_other_code_are_counted(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = SimpleNamespace(key="photos/dlg/none")
    monkeypatch.setattr(planning, "groups", lambda params: [group])
    for digest, same in (("c" * 64, 2), ("e" * 64, 0)):
        monkeypatch.setattr(machine, "attack_code", lambda params, group, digest=digest: digest)
        assert machine.code(SimpleNamespace(folder=run)) == {"cells": 2, "same_code": same}


def test_what_the_survey_step_writes_is_what_the_export_reads(run: Path, tmp_path: Path) -> None:
    given = SimpleNamespace(folder=run)
    machine.write(given, tmp_path)
    found = read_json(run / "timings" / machine.FILE)
    assert found["late"] is False
    assert "not known: the run was made outside git" in (
        export.export(run, tmp_path / "published", called=tmp_path) / "README.md").read_text()
