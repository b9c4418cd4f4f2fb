"""A track, a data set, an attack and a defense of the user's own, in a folder beside params.yaml, through the real
workflow: nothing of the project is edited, and the track is shorter than 100 lines."""

from __future__ import annotations

import json

import pandas as pd
import pytest

pytestmark = pytest.mark.workflow

DATA = '''"""patients: who of a ward has the condition. Drawn."""
from dataclasses import dataclass

import numpy as np

from inversionbench.data.base import PARTS, Card, DatasetSource


@dataclass(frozen=True)
class Patients(DatasetSource):
    id = "patients"
    card = Card("patients", "counts", "drawn", "none", embedded=True)

    size: int = 40

    def build(self, root, out, rng):
        for part in PARTS:
            sick = (rng.random(self.size) < 0.3).astype(np.int64)
            out.put(part, rng.random((self.size, 2), dtype=np.float32), sick)
        out.meta(2)
'''
TRACK = '''"""Counting queries: a ward says how many of any group of its patients have the condition."""
from inversionbench.core.attack import Knowledge
from inversionbench.core.errors import UserError
from inversionbench.core.levels import Level
from inversionbench.core.scenario import Evaluation, Target
from inversionbench.tracks.base import Track


class Counting(Track):
    id = "counting"
    title = "Counting queries"
    about = "A ward answers how many of a group of patients are ill. The attacker asks about groups of his choice."
    levels = {"COUNT": Level("counts", frozenset({"count"}))}
    controls = {"all_well": {"label": "everybody well", "reach": "guess", "note": "says that nobody is ill"}}
    headline = "accuracy"
    metrics = ("accuracy",)
    modality = "counts"
    hooks = frozenset({"release"})

    def check(self, scenario):
        if scenario.model.get("name") != "ward":
            raise UserError(f"model.name: got {scenario.model.get('name')!r}. Allowed: ward")

    def train_target(self, scenario, defense, data, seed, progress):
        import torch

        sick = torch.from_numpy(data.private.y[: scenario.subjects].copy())
        return Target({"sick": sick}, {"sick": sick}, {"accuracy": 1.0})

    def oracle(self, scenario, released, attack, level, defense, seed):
        import torch

        from inversionbench.oracle.base import Ledger, Oracle

        ledger, rng = Ledger(), torch.Generator().manual_seed(seed)

        def count(group, phase="search"):
            ledger.charge("count", len(group), phase)
            totals = group.float() @ released["sick"].float()
            return defense.release(totals, rng) if "release" in defense.hooks else totals

        return Oracle(level, {"count": count}, ledger)

    def knowledge(self, scenario, released, public, meta, prior):
        return Knowledge(patients=len(released["sick"]))

    def evaluate(self, scenario, reconstruction, target, data, evaluator, seed):
        import numpy as np

        sick = target.truth["sick"]
        right = (reconstruction.data == sick).double().numpy()
        return Evaluation({"accuracy": right}, np.arange(len(sick)),
                          {"all_well": {"accuracy": (sick == 0).double().numpy()}})
'''
ATTACK = '''"""Differencing: the count of all minus the count of all but one is what that one has."""
from dataclasses import dataclass

from inversionbench.core.attack import Attack, Reconstruction


@dataclass(frozen=True)
class Differencing(Attack):
    """Two counts a patient."""

    id = "differencing"
    level = "COUNT"

    def run(self, oracle, knowledge, rng):
        import torch

        n = knowledge.patients
        everybody = torch.ones(n, n, dtype=torch.int64)
        found = oracle.count(everybody) - oracle.count(everybody - torch.eye(n, dtype=torch.int64))
        return Reconstruction(found.round().long().clamp(0, 1), torch.arange(n))
'''
DEFENSE = '''"""Counts in multiples of the strength."""
from dataclasses import dataclass

from inversionbench.core.defense import Defense


@dataclass(frozen=True)
class CoarseCounts(Defense):
    """strength: the multiple; 0 says the count as it is."""

    id = "coarse_counts"
    hooks = frozenset({"release"})
    inputs = ("counts",)

    strength: float = 0.0

    def release(self, logits, rng):
        return logits if self.strength == 0 else (logits / self.strength).round() * self.strength
'''
FILES = {
    "data/patients.py": DATA, "tracks/counting/track.py": TRACK, "defenses/own/coarse_counts.py": DEFENSE,
    "tracks/counting/attacks/differencing.py": ATTACK,
}  # fmt: skip
PARAMS = """scale: own
plugins: [ward]
datasets: {patients: {size: 60}}
scenarios:
  ward_counts: {track: counting, dataset: patients, model: {name: ward}, subjects: 40, target_seeds: 2, seeds: [0, 1]}
attacks: {differencing: {}}
defenses: {coarse_counts: {strengths: [5]}}
"""


def written(project):
    for path, text in FILES.items():
        (file := project.folder / "ward" / path).parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (project.folder / "params.yaml").write_text(PARAMS)
    return project


def test_a_track_of_ones_own_runs_from_its_folder(fresh):
    assert TRACK.count("\n") < 100
    own = written(fresh)
    own.snakemake()
    folder = own.folder / "results" / "own"
    record = json.loads((folder / "cells/ward_counts/differencing/none/0/0/record.json").read_text())
    assert (record["metrics"]["accuracy"]["mean"], record["cost"]["queries"]) == (1.0, 80)
    defended = json.loads((folder / "cells/ward_counts/differencing/coarse_counts/5/0/record.json").read_text())
    assert defended["metrics"]["accuracy"]["mean"] < 0.9
    attacks = pd.read_csv(folder / "survey" / "attacks.csv")
    assert set(attacks["track"]) == {"counting"}
    assert "Counting queries" in (text := (folder / "survey" / "survey.md").read_text())
    assert "everybody well" in text
    # an edit of the attack runs its cells again and nothing that comes before
    own.edit("ward/tracks/counting/attacks/differencing.py", ".round()", ".round().abs()")
    assert own.planned() == {"attack": 2, "evaluate": 1, "survey": 1, "sync": 1}
    listed = own.inversionbench("list", "--kind", "attack").stdout
    assert "differencing" in listed


@pytest.mark.parametrize(("old", "new", "says"), [
    ("plugins: [ward]", "plugins: [wards]", "neither a folder nor a package"),
    ("track: counting", "track: countin", "did you mean 'counting'"),
    ("differencing: {}", "diferencing: {}", "did you mean 'differencing'"),
])  # fmt: skip
def test_a_wrong_name_is_one_line(fresh, old, new, says):
    own = written(fresh)
    own.edit("params.yaml", old, new)
    done = own.inversionbench("check", check=False)
    assert done.returncode == 2
    assert says in done.stdout
    assert "Traceback" not in done.stdout
