"""A finished run -> a small folder that can stand in git: tables, costs, figures and what the run was.

    README.md       commit, machine, versions, cells, costs, digests of the data: all read from the run's files
    records.json    a digest of every record, for `inversionbench compare`
    survey.md       the tables            attacks.csv, defenses.csv, changes.csv, metrics.json, params.json,
                                                costs*.csv
    figures/        the figures, in fewer colours; galleries of embedded data alone, because terms of other data
                    sets seldom allow pictures and people stand in some of them

The same run gives the same bytes. `notes.md`, what a person has to say of the run, is kept where it is there.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from inversionbench.core import records, registry
from inversionbench.core.errors import UserError
from inversionbench.core.files import atomic_folder, read_json, visible, write_json, write_text
from inversionbench.data.sources import ROOT_VARIABLE, data_root
from inversionbench.plan import cells, params
from inversionbench.survey import calls, collect, compare, machine, report, words
from inversionbench.survey.costs import KINDS

FILES = {
    "[survey.md](survey.md)": "the tables for reading",
    "attacks.csv, defenses.csv": "every number with interval, n and seeds (columns: docs/tables.md of the project)",
    "changes.csv": "pairs of attacks that differ in one thing, where there are such",
    "metrics.json": "headline numbers, flat",
    "params.json": "every parameter",
    "records.json": "a digest of every record: `inversionbench compare` says whether another run is the same",
    "costs*.csv": "counted work, seconds and memory by cell, by attack and of training",
    "figures/": "the figures",
}
TABLES = ("attacks.csv", "defenses.csv", "changes.csv")
COSTS = ("costs.csv", "costs_attacks.csv", "costs_training.csv")
ORDER = ("study", "overview", "attacks", "curves", "tradeoff", "knowing", "traffic", "each", "heat", "gallery")
NOTES = "notes.md"
LARGEST = 2**20  # bytes of a file
ALL, README = 1_500_000, 20_000  # bytes of the folder, and what of them is kept for its README
LINK = re.compile(r"\[(\d+)\]\(\.\./cells/[^)]*\)")


@dataclass
class Run:
    """A run on disk: its parameters, its records, and the planned cells that have none."""

    params: params.Params
    records: list[dict[str, Any]]
    absent: list[str]
    called: Path  # where Snakemake was called
    left_out: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.params.folder


def export(folder: Path, to: Path, incomplete: bool = False, called: Path = Path()) -> Path:
    """Write the run in `folder` (<results>/<scale>) to `to`, in the place of what is there.

    Raises `UserError` where cells have no record (unless `incomplete`), the tables were not made from these
    records, or a check of the survey failed.
    """
    run = read(folder, called)
    _refuse(run, incomplete)
    if not (folder / "timings" / machine.FILE).is_file():  # a run of before the survey step wrote it
        machine.write(run.params, called, late=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(to) as out:
        if (to / NOTES).is_file():
            shutil.copyfile(to / NOTES, out / NOTES)
        _tables(run, out)
        cells_of = compare.summary(run.params, run.records)
        write_text(out / compare.FILE, json.dumps(cells_of, sort_keys=True).replace("], ", "],\n") + "\n")
        shown = _figures(run, out)
        write_text(out / "README.md", readme(run, shown, (out / NOTES).is_file()))
    return to


def read(folder: Path, called: Path = Path()) -> Run:
    """The run in a folder, with the parameters that it was made with."""
    if not (folder / "params.json").is_file():
        raise UserError(f"no run in {folder}: `snakemake --cores all` makes one (with --configfile for another scale)")
    given = params.read(folder / "params.json")
    if given.folder.resolve() != folder.resolve():
        raise UserError(f"{folder} holds the parameters of {given.folder}: call this where the run was made")
    planned = cells.planned(given)
    found = [record for record in collect.read(folder / "cells") if record["key"] in planned]
    return Run(given, found, sorted(planned - {record["key"] for record in found}), called)


def _refuse(run: Run, incomplete: bool) -> None:
    """Raise where the run is no whole run, or its tables are not of these records."""
    survey, planned = run.folder / "survey", len(run.records) + len(run.absent)
    again = "Run `snakemake --cores all` again"
    if run.absent and not incomplete:
        raise UserError(f"the run is not complete: {len(run.absent)} of {planned} cells have no record (the first is "
                        f"{run.absent[0]}). {again}, or export what is there with --incomplete.")
    expected = {key: cells.parameters(run.params, group, strength)
                for group in cells.groups(run.params) for key, strength, _ in group.cells()}  # fmt: skip
    for record in run.records:
        if record["parameters"] != json.loads(json.dumps(expected[record["key"]])):
            raise UserError(f"{record['key']} was made with other parameters than those of {run.folder / 'params.json'}"
                            f", which somebody has changed. {again}.")  # fmt: skip
    if not (survey / "cells.parquet").is_file():
        raise UserError(f"no tables in {survey}: {again}, or `inversionbench survey`")
    if (survey / machine.PROBLEMS).is_file():
        raise UserError(f"{survey / machine.PROBLEMS} says that these numbers are not to be trusted; nothing is "
                        "exported")
    frame = pd.read_parquet(survey / "cells.parquet", columns=["key", "digest"]).drop_duplicates()
    shown = set(frame.itertuples(index=False, name=None))
    if shown != {(record["key"], records.digest(record)) for record in run.records}:
        raise UserError(f"the tables in {survey} are of other records than those in {run.folder / 'cells'}. {again}.")


def _tables(run: Run, out: Path) -> None:
    """Copy what is text, without links to records and without the folders of this machine."""
    survey = run.folder / "survey"
    text = LINK.sub(r"\1", (survey / "survey.md").read_text())
    text = text.replace("Records are linked by seed.", "The last column names the seeds.")
    write_text(out / "survey.md", _clean(run, text.replace("| records |", "| seeds |")))
    for path in (*(survey / name for name in TABLES), *(run.folder / "timings" / name for name in COSTS)):
        if path.is_file():
            _table(run, path, out)
    shutil.copyfile(survey / "metrics.json", out / "metrics.json")
    mine = {"data": {"root": None}, "tracking": {"uri": None}}  # where one machine keeps its data
    write_json(out / "params.json", {**run.params.raw, **{k: v for k, v in mine.items() if k in run.params.raw}})


def _table(run: Run, path: Path, out: Path) -> None:
    """Copy a table; where it is too large for git, the rows of the headline metric."""
    text = path.read_text()
    if len(text.encode()) > LARGEST:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        if "headline" in frame:
            text = frame[frame["headline"] == "True"].to_csv(index=False, lineterminator="\n")
            run.left_out.append(f"rows of {path.name} beyond the headline metric ({len(frame)} in all)")
    write_text(out / path.name, _clean(run, text))
    if (out / path.name).stat().st_size > LARGEST:
        (out / path.name).unlink()
        run.left_out.append(f"{path.name} (above 1 MiB)")


def _clean(run: Run, text: str) -> str:
    """Text without the folders of this machine, which stand in reasons."""
    root = data_root(run.params.data_root)
    for folder, said in ((root, f"${ROOT_VARIABLE}"), (run.called.resolve(), ".")):
        if folder is not None and str(folder) not in ("/", "."):
            text = text.replace(str(folder), said)
    return text


def _figures(run: Run, out: Path) -> list[str]:
    """Write the figures, the galleries last, as far as the folder stays small; returns their names."""
    (out / "figures").mkdir()
    real = [name for name, s in run.params.scenarios.items() if not _embedded(run.params, s.dataset)]
    paths = sorted((run.folder / "survey" / "figures").glob("*.png"))
    private = [p for p in paths if p.name.startswith(tuple(f"gallery-{name}-" for name in real))]
    room = ALL - README - sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shown, large = [], []
    for path in _ordered(set(paths) - set(private), _ranks(run)):
        small = _smaller(path)
        if len(small) > room:
            large.append(path.stem.partition("-")[0])
            continue
        room -= len(small)
        (out / "figures" / path.name).write_bytes(small)
        shown.append(path.name)
    if private:
        run.left_out.append(f"{len(private)} galleries of data that is not embedded (its terms, its people)")
    if large:
        counts = ", ".join(f"{n} of kind {kind}" for kind, n in sorted(Counter(large).items()))
        run.left_out.append(f"{len(large)} figures, to keep the folder small ({counts}); they are in the run's report")
    return shown


def _ranks(run: Run) -> dict[str, int]:
    """gallery-<scenario>-<attack> -> how many attacks on the scenario leak more."""
    table = pd.read_csv(run.folder / "survey" / "attacks.csv")
    table = table[table["headline"].astype(bool) & (table["kind"] == "attack") & table["mean"].notna()]
    ranks: dict[str, int] = {}
    for scenario, rows in table.groupby("scenario"):
        order = rows.sort_values("mean", ascending=rows.iloc[0]["direction"] == "lower")
        ranks |= {f"gallery-{scenario}-{attack}": i for i, attack in enumerate(order["attack"])}
    return ranks


def _ordered(paths: set[Path], ranks: dict[str, int]) -> list[Path]:
    """Figures by kind; galleries last, those of the strongest attack of each scenario before the others."""
    kinds = {path: path.stem.partition("-")[0] for path in paths}
    places = {kind: i for i, kind in enumerate(ORDER)}
    return sorted(paths, key=lambda path: (places.get(kinds[path], -1), ranks.get(path.stem, len(ranks)), path.name))


def _smaller(path: Path) -> bytes:
    """A PNG in 64 colours, a gallery in 256: a third of the bytes, and the eye sees no difference."""
    image: Image.Image = Image.open(path).convert("RGB")
    colours = 256 if path.name.startswith("gallery") else 64
    buffer = io.BytesIO()
    image = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(buffer, "PNG", optimize=True)
    return min(buffer.getvalue(), path.read_bytes(), key=len)


def _embedded(given: params.Params, entry: str) -> bool:
    """Whether a data set, or both that it combines, are part of the project's libraries or generated."""
    parts = given.combined(entry) or (entry,)
    sources: list[Any] = [registry.get("dataset", given.dataset(part)[0]) for part in parts]
    return all(source.card.embedded for source in sources)


def readme(run: Run, figures: Sequence[str], noted: bool) -> str:
    """README.md of the folder."""
    statuses = Counter((r["status"], r.get("reason") or "") for r in run.records if r["status"] != "ok")
    statuses.update(("no record", "planned, and not run") for _ in run.absent)
    made = calls.of_run(run.called, run.params.scale)
    total = len(run.records) + len(run.absent)
    page = report.environment(False).get_template("published.md.j2").render(
        scale=run.params.scale, about_scale=words.words()["scales"].get(run.params.scale, ""), cells=total,
        answered=total - statuses.total(), whole=not statuses, command=made[-1].command if made else "",
        files=[*FILES.items(), *([(f"[{NOTES}]({NOTES})", "what to read out of it")] if noted else [])],
        left_out=run.left_out, unanswered=[(n, *why) for why, n in sorted(statuses.items())],
        run=list(_run(run, made)), data=sorted(_data(run)), pictures=[(name, _alt(name)) for name in figures],
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", _clean(run, page)).rstrip("\n") + "\n"


def _run(run: Run, made: Sequence[calls.Call]) -> Iterator[tuple[str, str]]:
    """(name, value) of what is said of the run; what the run did not leave is said to be missing."""
    here = read_json(run.folder / "timings" / machine.FILE)
    yield "commit", _commit(here)
    if "same_code" in here:
        yield "code", f"{here['same_code']} of {here['cells']} records carry the digest of this code"
    memory = f", {here['memory_gib']:g} GiB" if here["memory_gib"] else ""
    gpus = ", ".join(here["gpus"]) or "no GPU"
    yield "hardware", f"{here['processor']}, {here['cores']} cores{memory}, {gpus} ({here['system']})"
    devices = sorted({str(r["provenance"].get("device")) for r in run.records if r["provenance"].get("device")})
    yield "computed on", ", ".join(devices) or "not recorded"
    yield "numerics", ", ".join(compare.summary(run.params, run.records)["numerics"])
    versions = {f"{k} {v}" for r in run.records for k, v in (r["provenance"].get("versions") or {}).items()}
    yield "versions", ", ".join([f"python {here['python']}", *sorted(versions)])
    timed = [r["timing"] for r in run.records if r["timing"]] + list(_trained(run))
    cpu, peak = (pd.Series([t.get(name) for t in timed], dtype=float) for name in ("cpu_seconds", "peak_memory_mib"))
    yield "processor time of jobs", (f"{_time(cpu.sum())} in training, priors and attacks "
                                     f"({len(timed)} timed; data, evaluation and tables are not)")
    yield "peak memory of a job", f"{peak.max():.0f} MiB" if peak.notna().any() else "not recorded"
    yield "wall time", _wall(made)


def _commit(here: dict[str, Any]) -> str:
    if not here["commit"]:
        return "not known: the run was made outside git"
    changed = here["changed"]
    said = f"with changes in {len(changed)} files: {', '.join(changed[:5])}" if changed else "nothing changed"
    return f"{here['commit']}, {said}" + (" (as the export found it; the run did not note it)" if here["late"] else "")


def _wall(made: Sequence[calls.Call]) -> str:
    if not made:
        return "not known: no log of a whole call of Snakemake"
    cores = ", ".join(str(n) for n in sorted({call.cores for call in made}))
    count = f"{len(made)} calls" if len(made) > 1 else "one call"
    said = f"{cores} core" + "s" * (cores != "1")
    jobs = sum(call.jobs for call in made)
    return f"{_time(sum(call.seconds for call in made))} in {count} of Snakemake on {said}, {jobs} jobs"


def _trained(run: Run) -> Iterator[dict[str, Any]]:
    for kind in KINDS:
        for path in visible(run.folder / "timings" / kind, "*.json"):
            yield read_json(path, path)


def _data(run: Run) -> set[tuple[str, str]]:
    return {(r["dataset"], str(r["provenance"]["data"])) for r in run.records if r["provenance"].get("data")}


def _time(seconds: float) -> str:
    """Seconds for people.

    >>> _time(975.6), _time(7384), _time(42.3)
    ('16 min 16 s', '2 h 3 min', '42 s')
    """
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _alt(name: str) -> str:
    kind, _, rest = name.removesuffix(".png").partition("-")
    return f"{kind}: {rest}".replace("_", " ")
