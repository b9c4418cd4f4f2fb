"""The two bridges between Snakemake, which decides what to run, and DVC, which decides what to keep.

`publish`, after a run: DVC takes what Snakemake made, and pushes it where a remote is set. `restore`, on
another clone: DVC brings it back, and Snakemake is told that it is up to date, but only if DVC says that
data, parameters and code are those it was made with. Both may be called again at any time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from inversionbench.core.errors import UserError

Run = subprocess.CompletedProcess[str]


def publish(scale: str, root: Path | str = ".") -> int:
    """Keep what a run of `scale` made; returns 0. Raises `UserError` where there is nothing whole to keep."""
    root = Path(root)
    outs = _outs(root, scale)
    absent = [out for out in outs if not (root / out).exists()]
    if absent:
        raise UserError(f"not there yet: {', '.join(absent)}. Run `snakemake --cores all` first.")
    left = pending(root, scale)
    if left:
        raise UserError(f"the run is not complete: {_jobs(left)} left (`snakemake --dry-run` lists them). Run "
                        "`snakemake --cores all` first, or what is published would not be what the parameters say.")
    lock = root / "dvc.lock"
    before = lock.read_bytes() if lock.is_file() else b""
    _dvc(root, "commit", "-f")
    print(f"kept by DVC: {', '.join(outs)}")
    if _with_remote(root, "push"):
        print("pushed to the default remote")
    else:
        print("no remote is set, so only this clone has it: `dvc remote add -d NAME URL`, then publish again")
    if lock.read_bytes() != before:
        print("dvc.lock has changed: commit it with git, and others can restore this run")
    return 0


def restore(scale: str, root: Path | str = ".") -> int:
    """Bring back what was published; 0 if nothing is left to compute, 1 if some of it is."""
    root = Path(root)
    outs = _outs(root, scale)
    if not (root / "dvc.lock").is_file():
        raise UserError("nothing was published: there is no dvc.lock. Run `snakemake --cores all`, then publish.")
    remote = _with_remote(root, "pull")  # without a remote DVC looks into the local cache
    print(f"restored from the {'default remote' if remote else 'local cache'}: {', '.join(outs)}")
    changed = json.loads(_dvc(root, "status", "--json").stdout or "{}")
    if changed:
        print(f"not what was published: {_changes(changed)}. Snakemake is left to find out what to compute; to use "
              "the published results as they are, go back to the commit that published them.")
        return 1
    _snakemake(root, scale, "--touch", "--forceall", "--cores", "1")
    left = pending(root, scale)
    print(f"{_jobs(left)} left, for files that DVC does not keep (MLflow, timings)" if left else
          "nothing is left to compute")
    return 0


def pending(root: Path | str, scale: str) -> int:
    """How many jobs Snakemake would run now."""
    said = _snakemake(Path(root), scale, "--dry-run", "--cores", "1")
    text = said.stdout + said.stderr
    if "Nothing to be done" in text:
        return 0
    total = re.findall(r"^total\s+(\d+)", text, re.MULTILINE)
    if not total:
        raise UserError(f"cannot read what `snakemake --dry-run` says:\n{_tail(text)}")
    targets = re.findall(r"^all\s+(\d+)", text, re.MULTILINE)  # `all` makes nothing itself
    return int(total[-1]) - (int(targets[-1]) if targets else 0)


def _jobs(count: int) -> str:
    return "1 job is" if count == 1 else f"{count} jobs are"


def _outs(root: Path, scale: str) -> list[str]:
    """What dvc.yaml keeps of a scale."""
    path = root / "dvc.yaml"
    if not path.is_file():
        raise UserError(f"no dvc.yaml in {root.resolve()}: run this in the folder of the project")
    stages: dict[str, Any] = yaml.safe_load(path.read_text()).get("stages", {})
    outs = [next(iter(out)) if isinstance(out, dict) else out
            for stage in stages.values() for out in stage.get("outs", [])]
    own = [out for out in outs if f"/{scale}/" in f"/{out}/"]
    if not own:
        raise UserError(f"dvc.yaml keeps nothing of scale '{scale}'; it keeps {', '.join(outs) or 'nothing'}. Add "
                        "stages for the scale, or copy its tables to results/published/.")
    return own


def _with_remote(root: Path, command: str) -> bool:
    """`dvc push` or `dvc pull`; False where no remote is set, which is no error of a push."""
    done = _run(root, [sys.executable, "-m", "dvc", command])
    said = done.stdout + done.stderr
    none = re.search("no remote specified|no default remote", said, re.IGNORECASE) is not None
    if done.returncode and not (none and command == "push"):
        raise UserError(f"`dvc {command}` failed:\n{_tail(said)}")
    return not none


def _changes(status: dict[str, Any]) -> str:
    """DVC's status in one line: stages and what changed in them."""
    parts = []
    for stage, changes in sorted(status.items()):
        what = [path for change in changes if isinstance(change, dict) for kind in change.values()
                for path in (kind if isinstance(kind, dict) else {})]
        parts.append(f"{stage} ({', '.join(sorted(set(what))) or 'changed'})")
    return ", ".join(parts)


def _dvc(root: Path, *arguments: str) -> Run:
    return _checked(root, [sys.executable, "-m", "dvc", *arguments], f"dvc {' '.join(arguments)}")


def _snakemake(root: Path, scale: str, *arguments: str) -> Run:
    overlay = root / "workflow" / "scales" / f"{scale}.yaml"
    more = ["--configfile", str(overlay.relative_to(root))] if overlay.is_file() else []
    return _checked(root, [sys.executable, "-m", "snakemake", *arguments, *more], f"snakemake {' '.join(arguments)}")


def _checked(root: Path, command: list[str], name: str) -> Run:
    done = _run(root, command)
    if done.returncode:
        raise UserError(f"`{name}` failed:\n{_tail(done.stdout + done.stderr)}")
    return done


def _run(root: Path, command: list[str]) -> Run:
    return subprocess.run(command, cwd=root, capture_output=True, text=True,
                          env={**os.environ, "DVC_NO_ANALYTICS": "1"})


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
