"""The last words of a run: where its results are, what failed and why."""

from __future__ import annotations

from inversionbench.core.files import read_json, write_json
from inversionbench.plan import cells
from inversionbench.plan.dag import Plan
from inversionbench.plan.params import Params
from inversionbench.survey.failures import Failures
from inversionbench.survey.machine import PROBLEMS
from inversionbench.workflow import runner


def summary(params: Params, failed: bool) -> int:
    """Print them; returns 1 after a run with failures, 0 after another.

    failed: some job of the run failed, so that nothing has made the table yet. Cells that failed are made ready to be
    tried again.
    """
    survey, said = params.folder / "survey", params.folder / "tracking.json"
    failures = Failures(Plan(params.raw))
    if failed:
        _what_is_there(params, failures)
    if (survey / PROBLEMS).is_file():
        print(f"NOT TO BE TRUSTED:\n{(survey / PROBLEMS).read_text()}")
    mlflow = read_json(said, said) if said.is_file() else {"status": "ok"}
    if mlflow["status"] != "ok":
        again = f"inversionbench --params {params.folder}/params.json sync"
        print(f"MLflow is not up to date ({mlflow['reason']}): `{again}` tries again")
    if survey.is_dir():
        holes = f" (without {len(failures.absent)} planned cells)" if failures.absent else ""
        print(f"table{holes}: {survey}/survey.md   report: {survey}/survey.html   MLflow: {params.tracking_uri}")
    else:
        print(f"no table yet: `snakemake --cores all` writes {survey}")
    for line in failures.told():
        print(line)
    return int(failures.try_again() or failed)


def _what_is_there(params: Params, failures: Failures) -> None:
    """Records, table, report and MLflow of a run that stopped."""
    from inversionbench.survey.build import build
    from inversionbench.workflow.tracking import sync

    for attack, groups in failures.half_ready().items():
        try:
            runner.evaluate(params, groups)
        except Exception as error:
            print(f"{attack}: cannot evaluate what is there: {error}")
    try:
        build(params)
    except Exception as error:  # what stopped the run is said below, and matters more
        print(f"no table of what is there: {error}")
        return
    shown = cells.planned(params) - failures.absent.keys()
    write_json(params.folder / "tracking.json", sync(params.folder / "cells", params.tracking_uri, params.scale, shown))
