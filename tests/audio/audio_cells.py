"""Small cells of the audio track, run through the same calls as the workflow makes."""

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
from inversionbench.data.speakers import Speakers
from inversionbench.tracks import get_track

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("audio")
PEOPLE = 6


@cache
def data():
    return build(Speakers(private_speakers=PEOPLE, public_speakers=20, private=16, public=6, evaluation=18, heldout=6))


def scenario(epochs=8, frames=72):
    training, protocol = {"epochs": epochs}, {"frames": frames}
    return Scenario("cell", "audio", "speakers", {"name": "speaker_net"}, training, protocol, PEOPLE)


def through_a_file(value):
    """As the workflow stores it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@cache
def judges():
    return through_a_file(TRACK.train_evaluator({"width": 10}, data(), 0, None))


@cache
def target(defense=NONE, epochs=8):
    found = TRACK.train_target(scenario(epochs), defense, data(), 0, None)
    found.released = through_a_file(found.released)
    return found


def attack(name, **params):
    return registry.get("attack", name)(**params)


def asked(method, defense=NONE):
    """(oracle, knowledge) of one cell."""
    released = target(defense).released
    oracle = TRACK.oracle(scenario(), released, method, method.level, defense, 0)
    return oracle, TRACK.knowledge(scenario(), released, data().public, {}, None)


@cache
def reconstruct(method):
    oracle, knowledge = asked(method)
    return method.run(oracle, knowledge, torch.Generator().manual_seed(0)), oracle, knowledge


@cache
def judged(method):
    return TRACK.evaluate(scenario(), reconstruct(method)[0], target(), data(), judges(), 0)


def metrics(method):
    return {name: float(np.mean(values)) for name, values in judged(method).metrics.items()}
