"""Where a run was made, and from which code: `timings/run.json`, written when the tables are drawn.

    commit      of the folder that the run was called in, and in `changed` what differs from it; null outside git
    cells       records of the run; `same_code`: those whose digest of code is that of this commit (absent where
                the package is installed from elsewhere)
    late        written by the export of a run that had not written it itself
    processor, cores, memory_gib, gpus, system, python      of the machine that drew the tables

Clocks and machines differ from run to run, so this lies under `timings/` and no step reads it but `export`. It holds no
name of a host or of a person.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from inversionbench.core import records
from inversionbench.core.files import write_json
from inversionbench.plan import cells
from inversionbench.plan.code import attack_code
from inversionbench.plan.params import Params

FILE = "run.json"
PROBLEMS = "problems.txt"  # in the survey's folder: cells that had to be equal and are not
WATCHED = ("src", "workflow", "params.yaml", "Snakefile", "pyproject.toml")  # what can change a number
ROOT = Path(__file__).parents[3]  # of the checkout, where the package is installed from one


def write(params: Params, folder: Path, late: bool = False) -> None:
    """Write `timings/run.json` of a run that was called in `folder`; late: long after the run."""
    made = code(params) if (folder / "src" / "inversionbench").resolve() == ROOT / "src" / "inversionbench" else {}
    write_json(params.folder / "timings" / FILE, {**commit(folder), **made, **machine(), "late": late})


def commit(root: Path) -> dict[str, Any]:
    """The commit that `root` stands at, and which files that can change a number differ from it."""
    head = _said("git", "-C", str(root), "rev-parse", "HEAD").strip()
    top = _said("git", "-C", str(root), "rev-parse", "--show-toplevel").strip()
    if not head or Path(top).resolve() != root.resolve():  # another repository may lie around a folder
        return {"commit": None, "changed": []}
    status = _said("git", "-C", str(root), "status", "--porcelain", "--", *WATCHED)
    return {"commit": head, "changed": sorted(line[3:] for line in status.splitlines())}


def code(params: Params) -> dict[str, int]:
    """How many records there are, and how many of them this code would write."""
    digests = {group.key: attack_code(params, group) for group in cells.groups(params)}
    made = [(r["key"].rsplit("/", 2)[0], r["provenance"].get("code"))
            for r in records.load(records.find(params.folder / "cells"))]
    made = [(key, digest) for key, digest in made if key in digests]
    return {"cells": len(made), "same_code": sum(digests[key] == digest for key, digest in made)}


def machine() -> dict[str, Any]:
    """What can be said of this machine without naming it."""
    return {
        "processor": processor(_text("/proc/cpuinfo")) or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": memory(_text("/proc/meminfo")),
        "gpus": gpus(_said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def processor(cpuinfo: str) -> str:
    """The model's name.

    >>> processor("processor\\t: 0\\nmodel name\\t: Some CPU  @ 2 GHz\\n")
    'Some CPU @ 2 GHz'
    """
    names = [value for key, _, value in _pairs(cpuinfo) if key == "model name"]
    return " ".join(names[0].split()) if names else ""


def memory(meminfo: str) -> float | None:
    """All memory in GiB.

    >>> memory("MemTotal:        8388608 kB\\n")
    8.0
    """
    found = [value for key, _, value in _pairs(meminfo) if key == "MemTotal"]
    return round(int(found[0].split()[0]) / 2**20, 1) if found else None


def gpus(said: str) -> list[str]:
    """Names of the graphics processors, one for each."""
    return [line.strip() for line in said.splitlines() if line.strip()]


def _pairs(text: str) -> list[tuple[str, str, str]]:
    split = (line.partition(":") for line in text.splitlines())
    return [(key.strip(), colon, value.strip()) for key, colon, value in split]


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""


def _said(*command: str) -> str:
    """What a command says; empty where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""
