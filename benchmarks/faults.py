"""Kill a small run again and again, fill its disk, run it twice; then compare with an undisturbed run.

    uv run python benchmarks/faults.py [--kills 50] [--seed 0]

Every trial works in a copy of the project with the parameters of the workflow tests. A trial survives where the same
command goes on to the end and every record, reconstruction and table has the bytes of the undisturbed run, with nothing
half written beside them. Prints what was tried and what was lost.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "workflow", "profiles", "src", "pyproject.toml", "README.md")
COMPARED = ("record.json", "attacks.csv", "defenses.csv", "survey.md", "metrics.json", "reconstruction.pt")


class Project:
    """A copy of the project that can be run and disturbed."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        for part in PARTS:
            source = ROOT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / part)
        shutil.copy(ROOT / "tests" / "workflow" / "mini.yaml", folder / "params.yaml")
        self.env = {k: v for k, v in os.environ.items() if k != "INVERSIONBENCH_DATA"}
        self.env |= {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""}

    def start(self, *options: str, limit: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *options]
        return subprocess.Popen(command, cwd=self.folder, env=self.env, start_new_session=True, preexec_fn=limit,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def finish(self) -> int:
        """Unlock, and run to the end as a user would."""
        self.start("--unlock").wait()
        return self.start().wait()

    def results(self) -> dict[str, bytes]:
        base = self.folder / "results" / "mini"
        return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.name in COMPARED}

    def litter(self) -> list[Path]:
        return [p for p in (self.folder / "results").rglob(".*.part*") if "mlflow" not in p.name]


def disturb(project: Project, how: signal.Signals, wait: float) -> bool:
    """Send a signal to a run after `wait` seconds; False where it had ended before."""
    process = project.start()
    try:
        process.wait(wait)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, how) if how == signal.SIGKILL else process.send_signal(how)
        process.wait()
        return True


def kills(base: Path, n: int, draw: random.Random, how: signal.Signals) -> Iterator[tuple[Project, int]]:
    """Runs, each killed at random moments until it has ended, with how often; about n kills in all."""
    done = 0
    while done < n:
        project, here = Project(base / f"{how.name}{done}"), 0
        while done + here < n and disturb(project, how, draw.uniform(2, 14)):
            here += 1
            project.start("--unlock").wait()
        done += max(here, 1)
        yield project, here


def full_disk(base: Path) -> Project:
    """No file may grow beyond 30 kB for a while, as on a disk that is full; then there is room again. Modules are
    compiled before: Python itself leaves cut bytecode on a full disk (see docs/reliability.md)."""
    project = Project(base / "full")
    subprocess.run([sys.executable, "-m", "compileall", "-q", project.folder / "src"], check=True)
    limit = (30_000, resource.RLIM_INFINITY)
    project.start(limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)).wait()
    return project


def twice(base: Path) -> Project:
    """A second run while the first is going on is refused, and changes nothing."""
    project = Project(base / "twice")
    first = project.start()
    time.sleep(6)
    second = project.start().wait()
    first.wait()
    assert second != 0
    return project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        plain = Project(base / "plain")
        assert plain.finish() == 0
        expected = plain.results()

        def same(project: Project) -> bool:
            ended = project.finish() == 0 and project.results() == expected and not project.litter()
            shutil.rmtree(project.folder)
            return ended

        tried = {"kill -9 at a random moment": 0, "SIGTERM": 0, "Ctrl-C": 0}
        lost = dict.fromkeys(tried, 0)
        for label, n, how in zip(tried, (args.kills, 4, 4), (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)):
            for project, here in kills(base, n, draw, how):
                tried[label] += here
                lost[label] += not same(project)
        for label, make in (("full disk", full_disk), ("two runs at once", twice)):
            tried[label], lost[label] = 1, int(not same(make(base)))
        for label, n in tried.items():
            print(f"{label:28} tried {n:3}, lost {lost[label]}")
        print(f"{'in all':28} tried {sum(tried.values()):3}, lost {sum(lost.values())}")


if __name__ == "__main__":
    main()
