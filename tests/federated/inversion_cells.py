"""Small federated cells on 16 x 16 photographs, run through the same calls as the workflow makes."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import torch

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.scenario import Scenario
from inversionbench.data.photos import Photos
from inversionbench.tracks import get_track

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("federated")


@cache
def data():
    options = {"resolution": 16, "private": 10, "public": 8, "evaluation": 1, "heldout": 1, "contrast": 0.08}
    return build(Photos(**options), 3)


def scenario(model="convnet", subjects=4, training=None, **protocol):
    options = {"name": model} if isinstance(model, str) else model
    return Scenario("cell", "federated", "photos", options, training or {}, protocol, subjects)


_targets = {}


def target(s, seed=0):
    key = (repr(s), seed)
    if key not in _targets:
        TRACK.check(s)
        _targets[key] = TRACK.train_target(s, NONE, data(), seed, None)
    return _targets[key]


def oracle_of(s, seed=0, level="GR"):
    return TRACK.oracle(s, target(s, seed).released, None, level, NONE, seed)


def knowledge_of(s, seed=0):
    return TRACK.knowledge(s, target(s, seed).released, data().public, {"shape": data().shape}, None)


def attack(name, s, seed=0, oracle=None, **params):
    made = registry.get("attack", name)(**params)
    rng = torch.Generator().manual_seed(seed + 7)
    level = made.level if isinstance(made.level, str) else made.access
    return made.run(oracle or oracle_of(s, seed, level), knowledge_of(s, seed), rng).cpu()


def psnr(s, result, seed=0):
    """Mean PSNR of the cell."""
    return TRACK.evaluate(s, result, target(s, seed), data(), {}, seed).metrics["psnr"].mean()


def truth(s, seed=0):
    """True images (clients, batch, c, h, w) and labels."""
    t = target(s, seed).truth
    return data().private.images(t["index"].flatten().numpy()).unflatten(0, t["index"].shape), t["labels"]
