"""A run with failures: what is there is shown, what is not says why, and the next run does the rest."""

from __future__ import annotations

import json

import pytest
import yaml

from inversionbench.plan.dag import Plan
from inversionbench.survey.failures import Failures
from inversionbench.workflow.runner import seed_of

pytestmark = pytest.mark.workflow
GROUPS = ("faces_cnn/killed/none", "faces_cnn/mi_face/confidence_rounding")
PARAMS = """
scale: mini
results: results
datasets:
  faces: {people: 4, private: 16, evaluation: 4, heldout: 40, public_people: 4, public: 4, resolution: 16,
          nuisance: 0.5}
evaluators:             # the weak evaluators: untrained
  judges:
    track: classifier
    dataset: faces
    options:
      first: {model: {name: resnet, width: 8}, training: {epochs: 0}}
      second: {model: {name: plain, width: 8}, training: {epochs: 0}}
      attributes: null
      verifier: null
scenarios:
  faces_cnn:
    track: classifier
    dataset: faces
    model: {name: cnn, width: 8}
    training: {epochs: 12, batch: 16}
    subjects: 2
    seeds: [0, 1]
    judges: judges
attacks:
  mi_face: {params: {iterations: 3}}
  killed: {method: mi_face, params: {iterations: 3}, defenses: []}
defenses:
  confidence_rounding: {strengths: [0.5]}
"""
RUN = "    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:\n"
SECOND = seed_of(Plan(yaml.safe_load(PARAMS)).params, "faces_cnn", "mi_face", 1)
BREAKS = f"""{RUN}        import os, sys
        if os.path.exists("no room") and sys.argv[-1] in {GROUPS}:
            print("out of memory", flush=True)
            os._exit(9)
        if os.path.exists("bad cell") and rng.initial_seed() == {SECOND}:
            raise ZeroDivisionError("in this cell")
"""
CELL, BAD = "faces_cnn/mi_face/none/0", "attack: ZeroDivisionError: in this cell"


def test_failures_are_shown_end_the_run_badly_and_are_tried_again(fresh):
    """Both evaluators know less than the target; an attack is killed, and another under one defense; one of its other
    cells breaks."""
    (fresh.folder / "params.yaml").write_text(PARAMS)
    fresh.edit("src/inversionbench/tracks/classifier/attacks/mi_face.py", RUN, BREAKS)
    for name in ("no room", "bad cell"):
        (fresh.folder / name).touch()
    end, table, results = stopped(fresh)
    for attack, cells in (("killed none", 2), ("mi_face confidence_rounding", 1)):
        assert f"FAILED attack faces_cnn {attack}, and with it {cells} cells (results/mini/logs/attack/" in end
    assert end.count("    out of memory\n") == 2
    assert f"{CELL}/1: {BAD}\n" in end
    record = json.loads((results / f"cells/{CELL}/0/record.json").read_text())
    assert record["status"] == "ok"
    for name, said in zip(("resnet", "plain"), record["facts"]["warnings"], strict=True):
        assert said.startswith(f"evaluator {name} is less accurate than the target of faces_cnn without defense: 0.")
    assert "1 of 2 attacks missing: MI-Face" in table
    assert "no leak shown" not in table
    for key in ("killed/none/0/1", "mi_face/confidence_rounding/0.5/0"):
        attack = " ".join(key.split("/")[:2])
        assert f"- faces_cnn/{key}: attack faces_cnn {attack} failed: out of memory\n" in table
    assert f"seed 1: {BAD}" in table
    assert json.loads((results / "tracking.json").read_text())["added"] == 2

    (fresh.folder / "no room").unlink()
    end, table, _ = stopped(fresh)
    assert f"FAILED 1 cells (traceback: results/mini/logs/):\n    {CELL}/1: {BAD}\n" in end
    assert "failed: out of memory" not in table
    assert "attacks missing" not in table
    assert f"seed 1: {BAD}" in table

    assert fresh.planned() == {"attack": 1, "evaluate": 1, "survey": 1, "sync": 1}
    steps = Failures(Plan(yaml.safe_load(PARAMS))).steps.values()
    logs = {str(path.relative_to(fresh.folder)) for path in (results / "logs").rglob("*.log")}
    assert logs == {str(step.log) for step in steps} | {f"results/mini/logs/{rule}.log" for rule in ("survey", "sync")}


def stopped(copy):
    """The last words of a run with failures, its table, and the folder of its results."""
    done = copy.snakemake(check=False)
    assert done.returncode == 1
    assert "attack faces_cnn/mi_face/none\n" in done.stdout  # it says what runs
    end = done.stdout[done.stdout.index("FAILED") :]
    assert "what failed and what waits for it: snakemake --cores 2" in end
    results = copy.folder / "results/mini"
    return end, (results / "survey/survey.md").read_text(), results
