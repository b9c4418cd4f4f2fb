"""A federated track small enough for tests: 16 x 16 crops of the embedded photographs, seconds per attack."""

from __future__ import annotations

import functools
import io
import tempfile
from pathlib import Path

import torch

from inversionbench.core import registry
from inversionbench.core.defense import NONE, Defense
from inversionbench.core.scenario import Scenario
from inversionbench.data.base import Dataset
from inversionbench.data.prepare import prepare
from inversionbench.tracks.federated.track import Federated

torch.set_num_threads(1)  # networks this small lose more than they gain by a second thread
TRACK = Federated()
CONVNET = {"name": "convnet", "widths": [8, 16, 32]}
LENET = {"name": "lenet"}
OPTIONS = {"resolution": 16, "private": 12, "public": 12, "evaluation": 1, "heldout": 4}
_FOLDER = tempfile.TemporaryDirectory()


@functools.cache
def data() -> Dataset:
    return prepare("photos", OPTIONS, None, Path(_FOLDER.name) / "photos")


def scenario(model=CONVNET, subjects=4, training=None, **protocol) -> Scenario:
    return Scenario("tiny", "federated", "photos", model, training or {}, protocol, subjects)


def target(where: Scenario, defense: Defense = NONE, seed: int = 0):
    return TRACK.train_target(where, defense, data(), seed, lambda items, **kwargs: items)


def price(where: Scenario, defense: Defense = NONE, seed: int = 0):
    return TRACK.price(where, defense, data(), seed, lambda items, **kwargs: items)


def knowledge(where: Scenario, made):
    return TRACK.knowledge(where, made.released, data().public, {"shape": list(data().shape)}, None)


def oracle(where: Scenario, made, defense: Defense = NONE):
    return TRACK.oracle(where, made.released, None, "GR", defense, 0)


def reconstruct(where: Scenario, made, name: str, seed: int = 0, defense: Defense = NONE, **params):
    attack = registry.get("attack", name)(**params)
    rng = torch.Generator().manual_seed(seed)
    return attack.run(oracle(where, made, defense), knowledge(where, made), rng).cpu()


def evaluate(where: Scenario, made, answer):
    return TRACK.evaluate(where, answer, made, data(), {}, 0)


def psnr(where: Scenario, made, answer) -> float:
    return float(evaluate(where, made, answer).metrics["psnr"].mean())


def through_a_file(value):
    """What another process would load."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
