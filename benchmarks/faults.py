"""Kill a small run again and again, fill its disk, close its folder, start it twice; then compare with an undisturbed
run.

    uv run python benchmarks/faults.py [--kills 50] [--others 4] [--seed 0]

Every trial works in a copy of the project with the parameters of the workflow tests. A trial survives where the same
command goes on to the end and every record, reconstruction and table has the bytes of the undisturbed run, with nothing
half written beside them. Prints what was tried and what was lost. The full disk is a small tmpfs and the closed folder
a read-only mount, both in a namespace of their own: without `unshare` they are not tried.
"""

from __future__ import annotations

import argparse
import compileall
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "workflow", "profiles", "src", "pyproject.toml", "README.md")
COMPARED = ("record.json", "attacks.csv", "defenses.csv", "survey.md", "metrics.json", "reconstruction.pt")
UNSHARE = ("unshare", "--map-root-user", "--mount")
Process = subprocess.Popen[bytes]
Trial = tuple["Project", int]  # after its disturbances, and how many they were


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
        compileall.compile_dir(folder / "src", quiet=2)  # see docs/reliability.md
        self.env = {k: v for k, v in os.environ.items() if k != "INVERSIONBENCH_DATA"}
        self.env |= {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""}

    def start(self, *options: str) -> Process:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *options]
        return subprocess.Popen(command, cwd=self.folder, env=self.env, start_new_session=True, preexec_fn=heed,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def unlock(self) -> None:
        self.start("--unlock").wait()

    def finish(self) -> int:
        """Unlock, and run to the end as a user would."""
        self.unlock()
        return self.start().wait()

    def results(self) -> dict[str, bytes]:
        base = self.folder / "results" / "mini"
        return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.name in COMPARED}

    def litter(self) -> list[Path]:
        return [p for p in (self.folder / "results").rglob(".*.part*") if "mlflow" not in p.name]


def heed() -> None:
    """What a shell starts in the background does not heed Ctrl-C, nor does what that starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def kill_all(process: Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def ctrl_c(process: Process) -> None:
    os.killpg(process.pid, signal.SIGINT)


def stopped(base: Path, send: Callable[[Process], None], n: int, draw: random.Random) -> Iterator[Trial]:
    """Runs, each stopped at random moments until it has ended; about n times in all."""
    done = 0
    while done < n:
        project, here, ended = Project(base / f"{send.__name__}{done}"), 0, False
        while done + here < n and not ended:
            process = project.start()
            try:
                process.wait(draw.uniform(2, 14))
                ended = True
            except subprocess.TimeoutExpired:
                send(process)
                assert process.wait() != 0
                project.unlock()
                here += 1
        done += max(here, 1)
        yield project, here


def twice(base: Path, n: int, draw: random.Random) -> Iterator[Trial]:
    """A second run while the first is going on must be refused, and change nothing."""
    for i in range(n):
        project, here = Project(base / f"twice{i}"), 0
        first = project.start()
        try:
            first.wait(draw.uniform(6, 14))
        except subprocess.TimeoutExpired:
            assert project.start().wait() != 0
            here = 1
        assert first.wait() == 0
        yield project, here


def full_disk(base: Path, n: int, need: int) -> Iterator[Trial]:
    """The project lies on a disk with room for a part of what it will write; then there is room again."""
    for i in range(n):
        disk = base / f"disk{i}"
        disk.mkdir()
        mount("-t", "tmpfs", "-o", "size=1g", "none", str(disk))
        project = Project(disk / "project")
        state = os.statvfs(disk)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize
        mount("-o", f"remount,size={used + need * (i + 1) // (n + 1)}", str(disk))
        assert project.start().wait() != 0
        mount("-o", "remount,size=1g", str(disk))
        yield project, 1
        subprocess.run(["umount", str(disk)], check=True)


def closed_folder(base: Path) -> Iterator[Trial]:
    """Nothing can be written to the folder of results, then it can."""
    project = Project(base / "closed")
    results = project.folder / "results"
    results.mkdir()
    mount("--bind", str(results), str(results))
    mount("-o", "remount,bind,ro", str(results))
    assert project.start().wait() != 0
    subprocess.run(["umount", str(results)], check=True)
    yield project, 1


def mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True)


def size(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--others", type=int, default=4, help="trials of each other kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the name of the disturbances to try")
    parser.add_argument("--mounts", action="store_true", help=argparse.SUPPRESS)  # in the namespace
    args = parser.parse_args()
    if not args.mounts and shutil.which("unshare") and not subprocess.run([*UNSHARE, "true"]).returncode:
        os.execvp(UNSHARE[0], [*UNSHARE, sys.executable, __file__, *sys.argv[1:], "--mounts"])
    draw, n, total = random.Random(args.seed), args.others, [0, 0]
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        plain = Project(base / "plain")
        assert plain.finish() == 0
        expected, need = plain.results(), size(plain.folder / "results") + size(plain.folder / ".snakemake")

        def same(project: Project) -> bool:
            ended, found = project.finish(), project.results()
            differ = sorted(k for k in expected.keys() | found if expected.get(k) != found.get(k))
            if ended or differ or project.litter():
                print(f"  lost: ended with {ended}, {differ} differ, {project.litter()} lie about")
            shutil.rmtree(project.folder)
            return not (ended or differ or project.litter())

        trials = {
            "kill -9 of the run and its jobs": stopped(base, kill_all, args.kills, draw),
            "kill -9 of Snakemake alone": stopped(base, Process.kill, n, draw),
            "SIGTERM": stopped(base, Process.terminate, n, draw),
            "Ctrl-C": stopped(base, ctrl_c, n, draw),
            "two runs at once": twice(base, n, draw),
        }
        if args.mounts:
            trials |= {"full disk": full_disk(base, n, need), "read-only results": closed_folder(base)}
        for label, made in trials.items():
            if args.only not in label:
                continue
            tried = lost = 0
            for project, here in made:
                tried, lost = tried + here, lost + (not same(project))
            total = [total[0] + tried, total[1] + lost]
            print(f"{label:32} tried {tried:3}, lost {lost}", flush=True)
        print(f"{'in all':32} tried {total[0]:3}, lost {total[1]}")


if __name__ == "__main__":
    main()
