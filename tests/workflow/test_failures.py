"""A run with failures: what is there is shown, what is not says why, and the next run does the rest."""

from __future__ import annotations

import json

import pytest
import yaml

from inversionbench.failures import Failures
from inversionbench.plan import Plan

pytestmark = pytest.mark.workflow
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
  killed: {method: mi_face, params: {iterations: 4}}
"""
RUN = "    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:\n"
BREAKS = f"""{RUN}        import os
        from inversionbench.runner import seed_of
        if os.path.exists("broken") and self.iterations == 4:
            print("out of memory", flush=True)
            os._exit(9)
        if os.path.exists("broken") and rng.initial_seed() == seed_of("faces_cnn", "mi_face", 1):
            raise MemoryError("no room for this cell")
"""
CELL, KILLED = "faces_cnn/mi_face/none/0", "faces_cnn/killed/none/0"


def test_failures_are_shown_end_the_run_badly_and_are_tried_again(fresh):
    """One cell of an attack breaks, another attack is killed, both evaluators know less than the target."""
    (fresh.folder / "params.yaml").write_text(PARAMS)
    fresh.edit("src/inversionbench/attacks/classifier/mi_face.py", RUN, BREAKS)
    (fresh.folder / "broken").touch()
    done = fresh.snakemake(check=False)
    assert done.returncode == 1
    end = done.stdout[done.stdout.index("FAILED") :]  # the reasons are the last words
    assert "attack faces_cnn killed none, and with it 2 cells" in end
    assert "    out of memory\n" in end
    assert f"{CELL}/1: attack: MemoryError: no room for this cell" in end
    assert "what failed and what waits for it: snakemake --cores 2" in end
    assert "attack faces_cnn/mi_face/none\n" in done.stdout  # it says what runs

    results = fresh.folder / "results/mini"
    record = json.loads((results / f"cells/{CELL}/0/record.json").read_text())
    assert record["status"] == "ok"
    for name in ("resnet", "plain"):
        assert any(
            f"evaluator {name} is less accurate than the target of faces_cnn without defense: 0.2" in sentence
            for sentence in record["facts"]["warnings"]
        ), record["facts"]
    table = (results / "survey/survey.md").read_text()
    assert "1 of 2 attacks missing: MI-Face" in table
    assert "no leak shown" not in table
    assert f"- {KILLED}/0: attack faces_cnn killed none failed: out of memory" in table
    assert "seed 1: attack: MemoryError: no room for this cell" in table
    assert json.loads((results / "tracking.json").read_text())["added"] == 2

    assert fresh.planned() == {"attack": 2, "evaluate": 2, "survey": 1, "sync": 1}
    (fresh.folder / "broken").unlink()
    assert "FAILED" not in fresh.snakemake().stdout
    steps = Failures(Plan(yaml.safe_load(PARAMS))).steps.values()
    logs = {str(path.relative_to(fresh.folder)) for path in (results / "logs").rglob("*.log")}
    assert logs == {str(step.log) for step in steps} | {f"results/mini/logs/{rule}.log" for rule in ("survey", "sync")}
    assert "attacks missing" not in (results / "survey/survey.md").read_text()
    assert fresh.planned() == {}
