"""Small cells of the text track, run through the same calls as the workflow makes: width 32, four heads."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from inversionbench.core import registry
from inversionbench.core.defense import NONE, Defense
from inversionbench.core.scenario import Scenario
from inversionbench.data.clinical_notes import ClinicalNotes
from inversionbench.tracks import get_track

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("text")


@dataclass(frozen=True)
class Noise(Defense):
    """Gaussian noise of `strength` times the root mean square of the update."""

    id = "noise"
    hooks = frozenset({"client_update"})

    def client_update(self, update, ctx):
        if not self.strength:
            return update
        scale = self.strength * torch.cat([t.flatten() for t in update.values()]).square().mean().sqrt()
        return {n: t + scale * torch.randn(t.shape, generator=ctx.rng, dtype=t.dtype) for n, t in update.items()}


@cache
def data():
    return build(ClinicalNotes(private=300, public=600, evaluation=10, heldout=60), 5)


def scenario(sizes=2, subjects=4, training=None, model=None, **protocol):
    options = {"name": "decoder", "width": 32, "vocabulary": 640, "length": 18, **(model or {})}
    sizes = list(sizes) if isinstance(sizes, tuple) else sizes
    protocol = {"batch_size": sizes, **protocol}
    return Scenario("cell", "text", "clinical_notes", options, training or {}, protocol, subjects)


def through_a_file(value):
    """As the workflow stores it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


_TARGETS = {}


def target(where, seed=0, defense=NONE):
    key = repr((where, seed, defense))
    if key not in _TARGETS:
        _TARGETS[key] = TRACK.train_target(where, defense, data(), seed, None)
    return _TARGETS[key]


def attack(**params):
    return registry.get("attack", "dager")(**params)


def reconstruct(method, where, seed=0, defense=NONE):
    """(reconstruction, oracle, knowledge)."""
    released = through_a_file(target(where, seed, defense).released)
    oracle = TRACK.oracle(where, released, method, "GR", defense, seed)
    knowledge = TRACK.knowledge(where, released, data().public, data().meta, None)
    return method.run(oracle, knowledge, torch.Generator().manual_seed(seed)), oracle, knowledge


def evaluated(method, where, seed=0, defense=NONE):
    answer = reconstruct(method, where, seed, defense)[0]
    return TRACK.evaluate(where, answer, target(where, seed, defense), data(), {}, seed), answer


def mean(found, name="exact_match", control=None):
    return float((found.controls[control] if control else found.metrics)[name].mean())
