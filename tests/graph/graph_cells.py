"""Small cells of the graph track, run through the same calls as the workflow makes."""

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
from inversionbench.data.karate import Karate
from inversionbench.tracks import get_track

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("graph")
SEEDS = (0, 1, 2)


@cache
def data():
    return build(Karate())


def scenario(epochs=200, **protocol):
    return Scenario("cell", "graph", "karate", {"name": "gcn"}, {"epochs": epochs}, protocol, 1)


def through_a_file(value):
    """As the workflow stores it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@cache
def target(seed=0, defense=NONE, epochs=200):
    found = TRACK.train_target(scenario(epochs), defense, data(), seed, None)
    found.released, found.truth = through_a_file(found.released), through_a_file(found.truth)
    return found


def attack(name, **params):
    return registry.get("attack", name)(**params)


def asked(method, seed=0, defense=NONE, epochs=200, released=None):
    """(oracle, knowledge) of one cell."""
    released = released or target(seed, defense, epochs).released
    oracle = TRACK.oracle(scenario(epochs), released, method, method.level, defense, seed)
    return oracle, TRACK.knowledge(scenario(epochs), released, data().public, {}, None)


@cache
def reconstruct(method, seed=0, defense=NONE, epochs=200):
    oracle, knowledge = asked(method, seed, defense, epochs)
    return method.run(oracle, knowledge, torch.Generator().manual_seed(seed)), oracle, knowledge


def metrics(method, seeds=SEEDS, defense=NONE, epochs=200):
    """Mean of each metric over targets, and of the twin's AUROC."""
    found = []
    for seed in seeds:
        done = TRACK.evaluate(scenario(), reconstruct(method, seed, defense, epochs)[0], target(seed, defense, epochs),
                              data(), {}, 0)  # fmt: skip
        found.append({name: v[0] for name, v in done.metrics.items()} | {"twin": done.facts["twin"]})
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}
