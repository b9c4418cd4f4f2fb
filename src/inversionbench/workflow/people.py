"""The two halves of a blind test: write the page, and read back what people answered (see `survey.blind`)."""

from __future__ import annotations

from pathlib import Path

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.files import write_text
from inversionbench.data import Dataset, load
from inversionbench.plan import cells
from inversionbench.plan.params import Params
from inversionbench.survey import blind


def ask(params: Params, where: str, pairs: int, seed: int, to: Path | None) -> str:
    """Write the page; says where it is and what comes next. where: SCENARIO, or SCENARIO/ATTACK/DEFENSE/STRENGTH."""
    if pairs < 1:
        raise UserError(f"--pairs: expected at least 1, got {pairs}")
    drawn, data = _draw(params, where, pairs, seed)
    path = to or params.folder / "blind" / f"{drawn.cells.replace('/', '-')}-{drawn.id}.html"
    write_text(path, blind.page(drawn, data))
    return (
        f"{path}: {len(drawn.pairs)} pairs of {drawn.cells}. Open it in a browser; it works without a network, and "
        f"holds photographs (terms: {data.meta['terms']}). Then: inversionbench blind {drawn.cells} --answers FILE"
    )


def hear(params: Params, where: str, answers: Path) -> str:
    """Keep the answers of one page; says what people saw."""
    if not answers.is_file():
        raise UserError(f"no such file of answers: {answers}")
    given = blind.read_answers(answers)
    if given["cells"] != where and given["cells"].split("/")[0] != where:
        raise UserError(f"{answers}: holds answers to {given['cells']}, not to {where}")
    drawn, _ = _draw(params, given["cells"], given["number"], given["seed"])
    found = blind.judge(drawn, given, str(answers))
    path = blind.keep(found, params.folder)
    bounds = found["interval"]
    span = f" [{100 * bounds[0]:.0f}, {100 * bounds[1]:.0f}]" if bounds else ""
    known = "" if found["photographs"] is None else f"; {100 * found['photographs']:.0f} % of pairs of photographs"
    return (
        f"right in {100 * found['share']:.0f} %{span} of {len(found['asked'])} pairs (chance 50){known}. "
        f"Kept in {path}; the next run puts it into the table, or: inversionbench survey"
    )


def _draw(params: Params, where: str, pairs: int, seed: int) -> tuple[blind.Draw, Dataset]:
    scenario = where.split("/")[0]
    if scenario not in params.scenarios:
        raise UserError(f"no scenario '{scenario}': {suggest(scenario, params.scenarios)}")
    if "/" not in where:
        where = blind.strongest(params.folder / "cells", scenario)
    known = {key.rpartition("/")[0] for key in cells.planned(params)}
    if where not in known:
        raise UserError(f"no cells '{where}': {suggest(where, known)}")
    data = load(params.folder / "data" / params.scenarios[scenario].dataset)
    return blind.draw(params.folder, where, data, pairs, seed), data
