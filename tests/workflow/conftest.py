"""A temporary copy of the project with small parameters, and the real Snakemake in it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "workflow", "profiles", "src", "pyproject.toml", "dvc.yaml", ".dvc", ".dvcignore", "README.md")


class Copy:
    """A copy of the project. Its package comes first on the path, so that edits in the copy count."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = {
            **{k: v for k, v in os.environ.items() if k != "INVERSIONBENCH_DATA"},
            "PYTHONPATH": str(folder / "src"),
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": "",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(*self.command(*arguments), check=check)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done

    def inversionbench(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "inversionbench", *arguments, check=check)

    def planned(self, *arguments: str) -> dict[str, int]:
        """Rule -> number of jobs that a dry run plans; empty where nothing is to be done."""
        text = self.snakemake("-n", *arguments).stdout
        if "Nothing to be done" in text:
            return {}
        table = text[text.rindex("Job stats:") :]
        found = {rule: int(n) for rule, n in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}
        return {rule: n for rule, n in found.items() if rule not in ("total", "all")}

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text()
        assert text.count(old) == 1, f"{path} holds {old!r} {text.count(old)} times"
        (self.folder / path).write_text(text.replace(old, new))

    def results(self) -> dict[str, bytes]:
        """Everything that must be equal in two runs: records, tables, reconstructions."""
        folder = self.folder / "results" / "mini"
        names = ("record.json", "attacks.csv", "defenses.csv", "survey.md", "metrics.json", "reconstruction.pt")
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.name in names}


MINI = (Path(__file__).parent / "mini.yaml").read_text()


def project(folder: Path, params: str = MINI) -> Copy:
    """The project without results."""
    folder.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"))
        elif source.is_file():
            shutil.copy(source, folder / part)
    (folder / "params.yaml").write_text(params)
    return Copy(folder)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """Where the whole small run has ended, made by the first of all workers that asks; nobody edits it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # workers have folders side by side
    folder = shared / "prepared"
    with (shared / "prepared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "log").is_file():
            shutil.rmtree(folder, ignore_errors=True)  # an attempt of another worker that failed
            log = project(folder).snakemake().stdout
            (folder / "log").write_text(log)
    return folder


@pytest.fixture
def finished(prepared, tmp_path) -> Copy:
    """A copy of its own in which the whole small run has ended: file times and Snakemake's memory included."""
    return Copy(shutil.copytree(prepared, tmp_path / "finished"))


@pytest.fixture
def fresh(tmp_path) -> Copy:
    return project(tmp_path / "fresh")
