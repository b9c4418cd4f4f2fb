"""A tiny split network on 16 x 16 photographs, run through the same calls as the workflow makes."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import torch

from inversionbench.core.defense import NONE
from inversionbench.core.scenario import Scenario
from inversionbench.data.photos import Photos
from inversionbench.defenses.feature_perturbation.additive_noise import AdditiveNoise
from inversionbench.tracks import get_track
from inversionbench.tracks.split.attacks.feature_inversion import FeatureInversion

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("split")
RECIPE = {"epochs": 15, "batch": 16, "rate": 4e-3}
SMALL = {"steps": 150, "weights": (0.01, 0.3), "tune": 3, "epochs": 12, "width": 8, "shadow": 8}


def quiet(items, **_):
    return items


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@cache
def data():
    options = {"resolution": 16, "private": 40, "public": 60, "evaluation": 1, "heldout": 20, "contrast": 0.08}
    return build(Photos(**options), 3)


def scenario(cut=2, **changes):
    model = {"name": "split_cnn", "cut": cut, "widths": [8, 16, 32]}
    return Scenario(**{"name": "cell", "track": "split", "dataset": "photos", "model": model, "training": RECIPE,
                       "subjects": 8, **changes})  # fmt: skip


@cache
def target(cut=2, defense=NONE):
    return TRACK.train_target(scenario(cut), defense, data(), 0, quiet)


def oracle(cut=2, defense=NONE, level="FT-WB", seed=5, **protocol):
    return TRACK.oracle(scenario(cut, protocol=protocol), target(cut, defense).released, None, level, defense, seed)


def knowledge(cut=2, defense=NONE, public=None):
    return TRACK.knowledge(scenario(cut), target(cut, defense).released, public or data().public, data().meta, None)


@cache
def answer(cut=2, defense=NONE, seed=7, **params):
    """An answer of feature inversion, and the ledger that it left."""
    attack = FeatureInversion(**{**SMALL, **params})
    asked = oracle(cut, defense, attack.access)
    return attack.run(asked, knowledge(cut, defense), generator(seed)).cpu(), asked.ledger


@cache
def judged(cut=2, defense=NONE, **params):
    found = answer(cut, defense, **params)[0]
    return TRACK.evaluate(scenario(cut), found, target(cut, defense), data(), {}, 1)


def psnr(cut=2, defense=NONE, **params):
    return judged(cut, defense, **params).metrics["psnr"].mean()


def utility(cut=2, defense=NONE):
    return TRACK.utility_of(scenario(cut), target(cut, defense), defense, data(), 1)


NOISE = AdditiveNoise(strength=1.5)
