"""The SLURM profile on a cluster that answers: every job is submitted, and the records are those of one machine.

On a cluster of several nodes give pytest a folder that all of them see: `--basetemp`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.workflow
MINI = Path(__file__).parent / "mini.yaml"
ONE = "dosing_tree"  # a scenario is enough: each job starts a Snakemake of its own


def silent() -> str:
    """Why no cluster can be used; empty where one answers and has a default partition."""
    try:
        done = subprocess.run(["sinfo", "-h", "-o", "%P"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no SLURM: {error}"
    if done.returncode:
        return f"no SLURM answers: {done.stderr.strip()}"
    return "" if "*" in done.stdout else "SLURM answers, but has no default partition"


def parameters() -> str:
    """The small run, one scenario of it."""
    given = yaml.safe_load(MINI.read_text())
    given["scenarios"] = {ONE: given["scenarios"][ONE]}
    given["attacks"] = {"mi_attribute": given["attacks"]["mi_attribute"]}
    given["datasets"] = {"dosing": given["datasets"]["dosing"]}
    return yaml.safe_dump(given)


def test_every_job_goes_through_the_cluster_and_the_records_are_the_same(fresh, request):
    if reason := silent():
        pytest.skip(reason)
    (fresh.folder / "params.yaml").write_text(parameters())
    planned = sum(fresh.planned().values())
    log = fresh.run(sys.executable, "-m", "snakemake", "--profile", "profiles/slurm").stdout
    submitted = set(re.findall(r"SLURM jobid '?(\d+)", log))
    assert len(submitted) == planned, log[-3000:]
    own, other = fresh.results(), request.getfixturevalue("finished").results()
    cells = [name for name in own if name.endswith("record.json")]
    assert len(cells) == 4
    assert all(own[name] == other[name] for name in cells)
    assert fresh.planned() == {}
