"""The survey's rows and the code that implements them.

`catalogue.csv` beside this file lists every attack, defense, metric and data set of the survey. A row is
covered when its implementation is registered under its id and tested, and, where results are given, when it
has a number in the table. The README's coverage table is generated from this (`update_readme`), so it cannot
claim more than the code holds.
"""

from __future__ import annotations

import ast
import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.core.files import write_text

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"attack": "Attacks", "defense": "Defenses", "metric": "Metrics", "dataset": "Data sets"}
BEGIN, END = "<!-- coverage:begin -->", "<!-- coverage:end -->"
REPOSITORY = Path(__file__).parents[3]
NO_METHOD_TESTS = {"survey", "workflow"}  # folders of tests that use names of methods as examples


@dataclass(frozen=True)
class Row:
    """One row of the survey. `listed`: where the survey names it; `access_or_hook`: what it needs or where it
    acts, in the survey's words."""

    kind: str
    id: str
    name: str
    family: str
    section: str
    track: str
    access_or_hook: str
    paper: str
    venue: str
    listed: str


@cache
def rows() -> tuple[Row, ...]:
    """All rows of the survey, in its order."""
    with (Path(__file__).parent / "catalogue.csv").open(newline="", encoding="utf-8") as handle:
        return tuple(Row(**{f.name: line[f.name] for f in fields(Row)}) for line in csv.DictReader(handle))


def name(kind: str, method: str) -> str:
    """The survey's name of a method; its id, with spaces, where the survey has no such row.

    >>> name("attack", "ggi"), name("attack", "random_prior")
    ('GGI', 'random prior')
    """
    known = {row.id: row.name for row in rows() if row.kind == kind}
    return known.get(method, method.replace("_", " "))


def registered(row: Row) -> bool:
    """Whether this version has an implementation of a row."""
    return row.id in registry.methods(row.kind)


def method_of(kind: str, entry: str) -> str:
    """The method behind an entry of the parameters: itself, or the longest known id that it begins with.

    >>> method_of("defense", "dgc"), method_of("defense", "local_dp_weak"), method_of("defense", "own")
    ('dgc', 'local_dp', 'own')
    """
    known = {row.id for row in rows() if row.kind == kind} | set(registry.methods(kind))
    fits = [name for name in known if entry == name or entry.startswith(f"{name}_")]
    return max(fits, key=len, default=entry)


def rebuilt(kind: str, entry: str) -> bool:
    """Whether the first paragraph of a method's docstring ends with the word "reconstruction": the paper could
    not be read, and the method was rebuilt from its description."""
    known = registry.methods(kind).get(method_of(kind, entry))
    return known is not None and known.doc.split("\n\n")[0].rstrip(" .\n`").lower().endswith("reconstruction")


def coverage(
    table: pd.DataFrame | None = None, tests: Path | None = None, repository: Path = REPOSITORY
) -> pd.DataFrame:
    """One line per row of the survey: path of its code, of its test, whether it has a number, and covered.

    table: the tidy frame of a run (or the columns kind, id of what is in a published table, from
    `published`); without it `in_table` is None and does not count. tests: the folder of tests.
    """
    import pandas as pd

    tested = _tested(tests or repository / "tests")
    present = None if table is None else _present(table)
    out = []
    for row in rows():
        method = registry.methods(row.kind).get(row.id)
        code = method.path.relative_to(REPOSITORY).as_posix() if method else ""
        test = _test(row, tested)
        shown = None if present is None else (row.kind, row.id) in present
        out.append({
            "kind": row.kind, "id": row.id, "name": row.name, "section": row.section, "family": row.family,
            "code": code, "test": test, "in_table": shown,
            "covered": bool(code and test and shown is not False),
        })
    return pd.DataFrame(out)


def published(repository: Path = REPOSITORY) -> pd.DataFrame | None:
    """What the published tables (`results/published/*/attacks.csv`, `defenses.csv`) hold; None without any."""
    import pandas as pd

    paths = sorted((repository / "results" / "published").glob("*/*.csv"))
    frames = [pd.read_csv(path, keep_default_na=False) for path in paths
              if path.name in ("attacks.csv", "defenses.csv")]
    return pd.concat(frames, ignore_index=True).fillna("") if frames else None


def coverage_markdown(repository: Path = REPOSITORY) -> str:
    """The coverage table of the README: a summary, then one folded table per kind."""
    table = coverage(published(repository), repository=repository)
    lines = ["| | in the survey | implemented | tested | in a published table |", "| --- | ---: | ---: | ---: | ---: |"]
    for kind, title in KINDS.items():
        part = table[table["kind"] == kind]
        shown = int(part["in_table"].eq(True).sum())
        lines.append(f"| {title} | {len(part)} | {int((part['code'] != '').sum())} | "
                     f"{int((part['test'] != '').sum())} | {shown} |")
    for kind, title in KINDS.items():
        part = table[table["kind"] == kind]
        lines += ["", f"<details><summary>{title}</summary>", "",
                  "| row | section | code | test | in a published table |", "| --- | --- | --- | --- | --- |"]
        lines += [_line(row) for row in part.itertuples()]
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def update_readme(path: str | Path, write: bool = True) -> bool:
    """Replace what stands between the markers by `coverage_markdown`; returns whether that is a change.

    With `write` False nothing is written, only compared.
    """
    path = Path(path)
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{path}: expected one '{BEGIN}' and after it one '{END}', each on a line of its own")
    head, rest = text.split(BEGIN)
    new = f"{head}{BEGIN}\n{coverage_markdown()}{END}{rest.split(END)[1]}"
    if write and new != text:
        write_text(path, new)
    return new != text


def _line(row) -> str:  # type: ignore[no-untyped-def]
    code = f"[`{row.id}`]({row.code})" if row.code else "–"
    test = f"[test]({row.test})" if row.test else "–"
    shown = {True: "yes", False: "–", None: "–"}[row.in_table]
    return f"| {row.name} | {row.section} | {code} | {test} | {shown} |"


def _present(table: pd.DataFrame) -> set[tuple[str, str]]:
    """(kind, id) of everything that has a number in a tidy frame or in a published table."""
    numbers = table["value"] if "value" in table else table["mean"]
    ok = table[numbers.replace("", None).notna()]
    columns = {"attack": "method", "dataset": "dataset"}
    found = {(kind, str(v)) for kind, column in columns.items() for v in ok.get(column, ())}
    found |= {("metric", metric.partition("[")[0]) for metric in ok["metric"]}
    return found | {("defense", method_of("defense", entry)) for entry in set(ok.get("defense", ()))}


def _test(row: Row, tested: list[tuple[str, str, Counter[str]]]) -> str:
    """The test file named after the row, else the one that names it or its class most often; empty without one."""
    of_class = row.id.title().replace("_", "")
    said = {path: names[row.id] + names[of_class] for path, folder, names in tested
            if row.id in names and _counts(row.kind, folder)}
    own = [path for path in said if path.endswith(f"/test_{row.id}.py")]
    return max(own or said, key=lambda path: said[path], default="")


def _counts(kind: str, folder: str) -> bool:
    """Whether a test in this folder of tests can be the test of a method of this kind."""
    if kind == "metric":
        return folder == "metrics"
    if kind == "dataset":
        return folder == "data"
    return folder not in {"", "metrics", "data", *NO_METHOD_TESTS}


def _tested(tests: Path) -> list[tuple[str, str, Counter[str]]]:
    """(path, folder, names) of every test file: its own name, its strings, its names and what it imports."""
    out = []
    for path in sorted(tests.rglob("test_*.py")):
        where = path.relative_to(tests).parts[:-1]
        names = _names(path, path.stat().st_mtime_ns) + Counter([path.stem.removeprefix("test_")])
        out.append((path.relative_to(tests.parent).as_posix(), where[0] if where else "", names))
    return out


@cache
def _names(path: Path, changed: int) -> Counter[str]:
    """All that a test file mentions; `changed` (its time) makes the cache forget what was edited."""
    return Counter(_mentioned(ast.parse(path.read_text(), filename=str(path))))


def _mentioned(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Import):
            yield from _last(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _last([node.module or "", *(alias.name for alias in node.names)])


def _last(modules: Iterable[str]) -> Iterator[str]:
    return (module.rpartition(".")[2] for module in modules)
