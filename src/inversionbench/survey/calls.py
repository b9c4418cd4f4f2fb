"""How long a run took, read from Snakemake's logs (`.snakemake/log/` in the folder it was called in).

A run may be made by several calls: after a kill, or one phase at a time. Calls belong to one run where Snakemake
gives the same digest of all parameters (`Config MD5`); calls that had nothing to do are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

LOGS = Path(".snakemake") / "log"
DATE = r"\w{3} \w{3} +\d+ \d+:\d+:\d+ \d{4}"


@dataclass(frozen=True)
class Call:
    """One call of Snakemake. seconds: from its start to its last line with a time; jobs: that it finished; whole:
    it finished all that it began."""

    command: str
    scale: str
    config: str
    cores: int
    seconds: float
    jobs: int
    whole: bool


def of_run(folder: Path, scale: str) -> list[Call]:
    """The calls behind the last whole run of a scale, oldest first; empty where there is no log of one."""
    logs = sorted((folder / LOGS).glob("*.snakemake.log"))
    calls = [call for path in logs if (call := read(path)) is not None and call.scale == scale and call.jobs]
    whole = [call for call in calls if call.whole]
    return [call for call in calls if call.config == whole[-1].config] if whole else []


def read(path: Path) -> Call | None:
    """One log; None where it ends before anything began."""
    text = path.read_text(errors="replace")
    fields = dict(re.findall(r"^  ([A-Z][\w() ]+): (.*)$", text, re.MULTILINE))
    if not {"Date", "Command", "Config MD5"} <= fields.keys():
        return None
    cores = re.search(r"^Provided cores: (\d+)", text, re.MULTILINE)
    steps = re.findall(r"^(\d+) of (\d+) steps", text, re.MULTILINE)
    return Call(
        command=_command(fields["Command"]),
        scale=_scale(fields.get("Config file(s)", ""), path.parents[2]),
        config=fields["Config MD5"],
        cores=int(cores[1]) if cores else 1,
        seconds=_seconds(text, fields["Date"]),
        jobs=int(steps[-1][0]) if steps else 0,
        whole=bool(steps) and steps[-1][0] == steps[-1][1],
    )


def _seconds(text: str, date: str) -> float:
    said = re.search(r"^Elapsed time: (?:(\d+) days?, )?(\d+):(\d+):([\d.]+)", text, re.MULTILINE)
    if said:
        days, hours, minutes, seconds = (float(part or 0) for part in said.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    times = re.findall(rf"^\[({DATE})\]", text, re.MULTILINE)  # killed: until the last job that it speaks of
    if not times:
        return 0.0
    last = datetime.strptime(times[-1], "%a %b %d %H:%M:%S %Y")
    return (last - datetime.strptime(date.strip(), "%Y-%m-%d %H:%M:%S")).total_seconds()


def _command(text: str) -> str:
    """The command without the folders of one machine.

    >>> _command("/home/x/.venv/bin/snakemake --cores 2 --configfile /home/x/workflow/scales/real.yaml")
    'snakemake --cores 2 --configfile workflow/scales/real.yaml'
    """
    words = [re.sub(r"^/.*/(?=workflow/|profiles/)", "", word) for word in text.split()]
    return " ".join(word.rpartition("/")[2] if word.startswith("/") else word for word in words)


def _scale(files: str, folder: Path) -> str:
    """The scale that a configuration file names; what an overlay says of it goes before params.yaml."""
    paths = [folder / name for name in re.findall(r"'([^']+)'", files)]
    paths.sort(key=lambda path: path.name == "params.yaml")
    for path in paths:
        found = re.search(r"^scale: *(\S+)", path.read_text(), re.MULTILINE) if path.is_file() else None
        if found:
            return found[1]
    return ""
