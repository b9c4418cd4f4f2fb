"""A tiny service of 16 x 16 photographs, run through the same calls as the workflow makes."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import torch

from inversionbench.core.defense import NONE
from inversionbench.core.scenario import Scenario
from inversionbench.data.photos import Photos
from inversionbench.defenses.miscellaneous.adversarial_noise import AdversarialNoise
from inversionbench.tracks import get_track
from inversionbench.tracks.answers.attacks.shuffled_explanation import ShuffledExplanation
from inversionbench.tracks.answers.attacks.smi import Smi
from inversionbench.tracks.answers.attacks.xai_inversion import XaiInversion

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("answers")
RECIPE = {"epochs": 8, "batch": 32, "rate": 4e-3}
KINDS = ["gradient", "gradient_x_input", "gradcam", "lrp"]
METHODS = {"smi": Smi, "xai_inversion": XaiInversion, "shuffled_explanation": ShuffledExplanation}
SMALL = {"epochs": 8, "width": 8, "rate": 4e-3}


def quiet(items, **_):
    return items


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@cache
def data():
    options = {"resolution": 16, "private": 40, "public": 60, "evaluation": 1, "heldout": 20, "contrast": 0.08}
    return build(Photos(**options), 3)


def scenario(**changes):
    return Scenario(**{"name": "cell", "track": "answers", "dataset": "photos", "model": {"name": "cnn", "width": 8},
                       "training": RECIPE, "protocol": {"explanations": KINDS}, "subjects": 32, **changes})  # fmt: skip


@cache
def target(defense=NONE):
    return TRACK.train_target(scenario(), defense, data(), 0, quiet)


def oracle(level="AN-S", defense=NONE, seed=5, **protocol):
    own = target(defense if defense.learnt else NONE).released
    return TRACK.oracle(scenario(protocol=protocol), own, None, level, defense, seed)


def knowledge(public=None, **protocol):
    return TRACK.knowledge(scenario(), {**target().released, **protocol}, public or data().public, data().meta, None)


@cache
def answer(name="smi", defense=NONE, seed=7, **params):
    """An answer of an attack, and the ledger that it left."""
    attack = METHODS[name](**{**SMALL, **params})
    asked = oracle(attack.access, defense, explanations=KINDS)
    return attack.run(asked, knowledge(), generator(seed)).cpu(), asked.ledger


@cache
def judged(name="smi", defense=NONE, seed=7, **params):
    found = answer(name, defense, seed, **params)[0]
    return TRACK.evaluate(scenario(), found, target(), data(), {}, 1)


def error(name="smi", defense=NONE, seed=7, **params):
    """Mean squared error over the victims, over that of the public mean image."""
    found = judged(name, defense, seed, **params)
    return found.metrics["mse"].mean() / found.controls["mean_image"]["mse"].mean()


NOISE = AdversarialNoise(strength=0.6, pairs=600, epochs=6)
