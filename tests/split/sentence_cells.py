"""A tiny split language model on generated clinical notes."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import torch

from inversionbench.core.defense import NONE
from inversionbench.core.scenario import Scenario
from inversionbench.data.clinical_notes import ClinicalNotes
from inversionbench.tracks import get_track
from inversionbench.tracks.split.attacks.sipit import Sipit

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("split")
MODEL = {"name": "split_decoder", "width": 32, "vocabulary": 640}


@cache
def data():
    return build(ClinicalNotes(private=300, public=600, evaluation=10, heldout=60), 5)


def scenario(**changes):
    given = {"name": "cell", "track": "split", "dataset": "clinical_notes", "model": MODEL,
             "training": {"epochs": 2, "rate": 4e-3}, "subjects": 6}  # fmt: skip
    return Scenario(**{**given, **changes})


@cache
def target(defense=NONE):
    return TRACK.train_target(scenario(), defense, data(), 0, lambda items, **_: items)


@cache
def recovered(defense=NONE, **params):
    """What SIPIT recovers, judged, and its answer."""
    oracle = TRACK.oracle(scenario(), target(defense).released, None, "FT-WB", defense, 5)
    known = TRACK.knowledge(scenario(), target(defense).released, data().public, data().meta, None)
    answer = Sipit(**params).run(oracle, known, torch.Generator().manual_seed(1)).cpu()
    return TRACK.evaluate(scenario(), answer, target(defense), data(), {}, 1), answer, oracle.ledger


def share(defense=NONE, metric="token_accuracy", **params):
    return recovered(defense, **params)[0].metrics[metric].mean()


def utility(defense=NONE):
    return TRACK.utility_of(scenario(), target(defense), defense, data(), 1)
