"""The real Snakemake in a temporary copy: what runs, what runs again, and what survives a kill."""

from __future__ import annotations

import json
import shutil

import pytest

from inversionbench.core import numerics

pytestmark = pytest.mark.workflow


def records(copy):
    return {
        record["key"]: record
        for path in (copy.folder / "results/mini/cells").rglob("record.json")
        for record in [json.loads(path.read_text())]
    }


def test_a_run_leaves_records_tables_and_says_where(finished):
    found = records(finished)
    assert set(found) == {
        *(f"dosing_tree/mi_attribute/none/0/{seed}" for seed in (0, 1)),
        *(f"dosing_tree/mi_attribute/confidence_rounding/0.5/{seed}" for seed in (0, 1)),
        "adult_tree/mi_attribute/none/0/0",
        "photos_convnet/inverting_gradients/none/0/0",
    }
    survey = finished.folder / "results/mini/survey"
    for name in ("attacks.csv", "defenses.csv", "survey.md", "survey.html", "cells.parquet"):
        assert (survey / name).stat().st_size > 0
    log = (finished.folder / "log").read_text()
    assert "table: results/mini/survey/survey.md" in log
    assert "sqlite:///results/mlflow.db" in log
    assert (finished.folder / "results/mlflow.db").is_file()


def test_missing_data_is_unavailable_with_the_reason_and_never_a_number(finished):
    record = records(finished)["adult_tree/mi_attribute/none/0/0"]
    assert record["status"] == "unavailable"
    assert "adult.data" in record["reason"]
    assert record["metrics"] == {}


def test_a_second_run_plans_nothing(finished):
    assert finished.planned() == {}


def test_a_changed_parameter_of_one_attack_runs_its_cells_and_the_table_again(finished):
    finished.edit("params.yaml", "{steps: 5}", "{steps: 6}")
    assert finished.planned() == {"attack": 1, "evaluate": 1, "survey": 1, "sync": 1}


@pytest.mark.parametrize(("old", "new"), [("scale: mini", "scale: mini\nseed: 1"),
                                          ("scale: mini", "scale: mini\ncompute: {numerics: native}")])  # fmt: skip
def test_another_seed_and_other_numerics_run_everything_again(finished, old, new):
    assert {r["provenance"]["numerics"] for r in records(finished).values()} == {"portable"}
    finished.edit("params.yaml", old, new)
    try:
        planned = finished.planned()
    finally:
        finished.edit("params.yaml", new, old)
    assert planned == {"prepare": 3, "train_target": 3, "train_evaluator": 1, "attack": 4, "evaluate": 3, "survey": 1,
                       "sync": 1}  # fmt: skip


NO_AVX = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "SSE4_2",
          "OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}


@pytest.mark.skipif(not numerics.possible(), reason="portable numerics are of x86-64 with AVX2")
def test_kernels_hidden_by_the_environment_change_no_record(prepared, finished):
    """The cell of a network again, from its data on, for a user whose environment hides AVX from every library. Under
    native numerics that changes the cell."""
    gone = [path for path in (finished.folder / "results/mini").rglob("photos*") if path.is_dir()]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    finished.env |= NO_AVX
    finished.snakemake("cells")
    assert all(path.is_dir() for path in gone)
    said = finished.inversionbench("compare", str(prepared / "results/mini"), "--run", "results/mini").stdout
    assert said.startswith("equal: 6 cells of ")


@pytest.mark.parametrize(
    ("module", "again"),
    [
        # two of dosing, one of adult
        ("tracks/tabular/attacks/_posterior.py", {"attack": 3, "evaluate": 2, "sync": 1}),
        ("tracks/federated/evaluate.py", {"evaluate": 1, "sync": 1}),
        ("survey/words.py", {}),
    ],
)
def test_an_edited_module_runs_again_the_cells_that_use_it(finished, module, again):
    path = finished.folder / "src/inversionbench" / module
    path.write_text(path.read_text() + "\n# edited\n")
    assert finished.planned() == {}
    path.write_text(path.read_text() + "EDITED = True\n")
    assert finished.planned() == {**again, "survey": 1}


def test_bad_parameters_stop_before_any_job_and_lose_nothing(finished):
    before = finished.results()
    finished.edit("params.yaml", "inverting_gradients:", "inverting_gradient:")
    done = finished.snakemake(check=False)
    finished.edit("params.yaml", "inverting_gradient:", "inverting_gradients:")
    assert done.returncode != 0
    assert "did you mean 'inverting_gradients'?" in done.stdout
    assert "Traceback" not in done.stdout
    assert finished.results() == before
    assert finished.planned() == {}


def test_explain_and_check_by_hand(finished):
    text = finished.inversionbench("explain", "dosing_tree/mi_attribute/none/0/0").stdout
    assert "balanced_accuracy" in text
    assert "(NO)" not in text
    absent = finished.inversionbench("explain", "adult_tree/mi_attribute/none/0/0").stdout
    assert "unavailable" in absent
    assert "adult.data" in absent
    assert "6 cells" in finished.inversionbench("check", "--params", "params.yaml").stdout
    done = finished.inversionbench("explain", "dosing_tree/mi_atribute/none/0/0", check=False)
    assert done.returncode == 2
    assert "dosing_tree/mi_attribute/none/0/0" in done.stdout
