"""Small cells of the tabular track, run through the same calls as the workflow makes."""

from __future__ import annotations

import io
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.scenario import Scenario
from inversionbench.data.dosing import Dosing
from inversionbench.tracks import get_track

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("tabular")


@cache
def data():
    """1200 private, 600 public records: members and non-members are dealt from the private ones."""
    return build(Dosing(private=1200, public=600, evaluation=10, heldout=300), 5)


@cache
def judges():
    return TRACK.train_evaluator({}, data(), 0, None)


def scenario(model="tree", **training):
    options = {"name": model} if isinstance(model, str) else model
    return Scenario("cell", "tabular", "dosing", options, {"members": 400, **training}, {}, 800)


def through_a_file(value):
    """As the workflow stores it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@cache
def target(model="tree", seed=0, defense=NONE, swap=0.0):
    return TRACK.train_target(scenario(model, swap=swap), defense, data(), seed, None)


def attack(name, **params):
    return registry.get("attack", name)(**params)


def level_of(method):
    return method.level if isinstance(method.level, str) else method.access


def reconstruct(method, model="tree", seed=0, defense=NONE, swap=0.0, trained=None):
    """(reconstruction, oracle, knowledge). trained: the defense that the target was trained with."""
    here = scenario(model, swap=swap)
    released = through_a_file(target(model, seed, defense if trained is None else trained, swap).released)
    oracle = TRACK.oracle(here, released, method, level_of(method), defense, seed)
    knowledge = TRACK.knowledge(here, released, data().public, data().meta, None)
    return method.run(oracle, knowledge, torch.Generator().manual_seed(seed)), oracle, knowledge


@cache
def metrics(method, model="tree", seeds=(0, 1), defense=NONE, swap=0.0, trained=None):
    """Mean of each metric over seeds."""
    done = []
    for seed in seeds:
        answer, _, _ = reconstruct(method, model, seed, defense, swap, trained)
        goal = target(model, seed, defense if trained is None else trained, swap)
        found = TRACK.evaluate(scenario(model), answer, goal, data(), judges(), 0)
        done.append({name: float(v[0]) for name, v in found.metrics.items()})
    return {name: float(np.mean([d[name] for d in done])) for name in done[0]}
