"""The bridges between Snakemake and DVC, on a project small enough to run both for real."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from inversionbench.core.errors import UserError
from inversionbench.workflow import versioning

SNAKEFILE = """
configfile: "params.yaml"
rule all:
    default_target: True
    input: "results/laptop/survey"
rule data:
    output: directory("results/laptop/data")
    params: n=config["n"]
    shell: "mkdir -p {output} && echo {params.n} > {output}/n"
rule survey:
    input: "results/laptop/data"
    output: directory("results/laptop/survey")
    shell: "mkdir -p {output} && cat {input}/n > {output}/table"
"""
DVC = """
stages:
  data:
    cmd: snakemake --cores 1 results/laptop/data
    params: [n]
    outs: [{results/laptop/data: {persist: true}}]
  survey:
    cmd: snakemake --cores 1
    deps: [results/laptop/data]
    outs: [{results/laptop/survey: {persist: true}}]
"""
GIT = ["-c", "user.name=x", "-c", "user.email=x@example.org"]


def sh(where: Path, *command: str) -> None:
    subprocess.run(command, cwd=where, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    for name, text in {"Snakefile": SNAKEFILE, "dvc.yaml": DVC, "params.yaml": "n: 3\n",
                       ".gitignore": "/results\n.snakemake\n.dvc/tmp\n.dvc/cache\n",
                       ".dvcignore": ".snakemake_timestamp\n"}.items():
        (root / name).write_text(text)
    sh(root, "git", "init", "-q", "-b", "main")
    (root / ".dvc").mkdir()  # all that `dvc init` leaves, besides ignore files
    (root / ".dvc/config").write_text(f"""[core]
    analytics = false
    autostage = false
    remote = store
['remote "store"']
    url = {tmp_path}/store
""")
    return root


@pytest.mark.workflow
def test_publish_then_restore_on_another_clone(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="not there yet"):
        versioning.publish("laptop", project)
    for name in ("data/n", "survey/table"):  # as the rules would
        path = project / "results/laptop" / name
        path.parent.mkdir(parents=True)
        path.write_text("3\n")
    assert versioning.publish("laptop", project) == 0
    assert "pushed to the default remote" in capsys.readouterr().out
    sh(project, "git", "add", "-A")
    sh(project, "git", *GIT, "commit", "-q", "-m", "run")

    clone = tmp_path / "clone"
    sh(tmp_path, "git", "clone", "-q", str(project), str(clone))
    assert versioning.restore("laptop", clone) == 0
    assert (clone / "results/laptop/survey/table").read_text() == "3\n"
    assert "nothing is left to compute" in capsys.readouterr().out

    # other parameters: what comes back is not what they say, so Snakemake is not told that it is up to date
    (clone / "params.yaml").write_text("n: 4\n")
    assert versioning.restore("laptop", clone) == 1
    assert "data (params.yaml)" in capsys.readouterr().out


def test_an_incomplete_run_is_not_published(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Job stats:\njob       count\n------  -------\ndata          1\nall           1\ntotal         2\n"
    monkeypatch.setattr(versioning, "_snakemake", lambda *_: SimpleNamespace(stdout=said, stderr=""))
    (project / "results/laptop/data").mkdir(parents=True)
    (project / "results/laptop/survey").mkdir()
    with pytest.raises(UserError, match="1 job is left"):
        versioning.publish("laptop", project)
    said = "what is this"
    monkeypatch.setattr(versioning, "_snakemake", lambda *_: SimpleNamespace(stdout=said, stderr=""))
    with pytest.raises(UserError, match="cannot read"):
        versioning.pending(project, "laptop")


def test_a_scale_that_is_not_kept_is_said(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing of scale 'smoke'; it keeps results/laptop/data"):
        versioning.publish("smoke", project)
    with pytest.raises(UserError, match="nothing was published"):
        versioning.restore("laptop", project)
    with pytest.raises(UserError, match=r"no dvc.yaml"):
        versioning.restore("laptop", tmp_path)
