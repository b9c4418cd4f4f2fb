"""A classifier track small enough for tests: rendered people, a small network, a linear prior of public faces.

Everything is trained once per test session (about ten seconds) and only read afterwards.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import nn

from inversionbench.core.attack import Knowledge
from inversionbench.core.defense import NONE
from inversionbench.core.prior import Prior
from inversionbench.core.scenario import Scenario
from inversionbench.data.base import Dataset, Part
from inversionbench.data.faces import Faces
from inversionbench.tracks.classifier.evaluate import refer, score
from inversionbench.tracks.classifier.track import Classifier, network
from inversionbench.training.evaluators import Judges

torch.set_num_threads(1)  # networks this small lose more than they gain by a second thread
TRACK = Classifier()
PEOPLE, SIDE, SUBJECTS = 12, 16, 6
TRAINING = {"epochs": 20, "rate": 8e-3, "batch": 32}  # until it knows all its photographs, whatever the seed
JUDGES = {
    "first": {"model": {"name": "resnet", "width": 8, "features": 32}, "training": {"epochs": 9, "rate": 5e-3}},
    "second": {
        "model": {"name": "plain", "width": 12, "features": 32},
        "training": {"epochs": 9, "rate": 5e-3, "noise": 0.05, "blur": 0.2},
    },
    "attributes": {
        "model": {"name": "cnn", "width": 8}, "training": {"epochs": 6, "rate": 5e-3}, "people": 500, "photos": 3,
    },
    "verifier": {"width": 8, "features": 64, "passes": 16000, "training": {"rate": 1e-2, "flip": True, "shift": 1}},
}


class _Memory:
    """Takes what a data set writes."""

    def __init__(self):
        self.parts, self.about = {}, {}

    def put(self, name, x, y, **extra):
        self.parts[name] = Part(x, y, extra)

    def meta(self, **about):
        self.about = about


@functools.cache
def data(seed: int = 0) -> Dataset:
    """Twelve people in passport-like photographs of 16 pixels; 80 other people are public."""
    source = Faces(resolution=SIDE, people=PEOPLE, private=24, evaluation=96, heldout=16, public_people=80,
                   public=10, nuisance=0.8)
    out = _Memory()
    source.build(None, out, np.random.default_rng(seed))
    return Dataset("faces", PEOPLE, (3, SIDE, SIDE), out.about, **out.parts)


def scenario(**changes) -> Scenario:
    given = {"model": {"name": "cnn", "width": 8}, "training": TRAINING, "protocol": {}, "subjects": SUBJECTS}
    return Scenario("tiny", "classifier", "faces", judges="tiny", **{**given, **changes})


def quiet(steps, **_):
    """A progress bar that shows nothing."""
    return steps


@functools.cache
def target(defense=NONE, seed: int = 0):
    return TRACK.train_target(scenario(), defense, data(), seed, quiet)


@functools.cache
def evaluators() -> dict:
    return TRACK.train_evaluator(JUDGES, data(), 1, quiet)


@functools.cache
def judges() -> Judges:
    return Judges(evaluators())


class _Faces(nn.Module):
    """The leading principal components of the public images as a generator: z -> mean + z B, clamped."""

    def __init__(self, x: torch.Tensor, z_dim: int):
        super().__init__()
        flat = x.flatten(1)
        _, s, v = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        self.shape = x.shape[1:]
        self.mean = nn.Parameter(flat.mean(0))
        self.basis = nn.Parameter(v[:z_dim] * s[:z_dim, None] / len(x) ** 0.5)

    def forward(self, z):
        return (self.mean + z @ self.basis).clamp(0, 1).unflatten(1, self.shape)


@functools.cache
def prior(z_dim: int = 24) -> Prior:
    generator = _Faces(data().public.images(), z_dim).eval().requires_grad_(False)
    return Prior(generator, None, z_dim)


def oracle(attack, defense=NONE, seed: int = 5, trained=None, **protocol):
    """The oracle that the track would build for this attack."""
    level = attack.level if isinstance(attack.level, str) else attack.access
    released = (trained or target()).released
    return TRACK.oracle(scenario(protocol=protocol), released, attack, level, defense, seed)


def knowledge(**more) -> Knowledge:
    released = target().released
    known = TRACK.knowledge(scenario(), released, data().public, data().meta, prior())
    known.grant(**more)
    return known


def scores(images, y) -> dict[str, float]:
    """Means of all metrics of images that claim to show classes y."""
    values = score(judges(), refer(judges(), data().private), images, y, network(target().released)).values
    return {name: value.mean() for name, value in values.items()}


@torch.no_grad()
def doubt(answer) -> float:
    """Mean cross entropy of the target on a reconstruction: what a search lowers, where top-1 is a count of few."""
    return nn.functional.cross_entropy(network(target().released)(answer.data), answer.labels).item()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(attack, seed: int = 0, **options):
    """The reconstruction of one attack, and the oracle it used."""
    asked = oracle(attack, **options)
    return attack.run(asked, knowledge(), generator(seed)), asked
