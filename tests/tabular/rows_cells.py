"""Small cells of row recovery, run through the same calls as the workflow makes."""

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
from inversionbench.data.census import Census
from inversionbench.models.rows import read_schema
from inversionbench.tracks import get_track

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("tabular")


@dataclass(frozen=True)
class Noise(Defense):
    """Gaussian noise of `strength` times the root mean square of the update."""

    id = "noise"
    hooks = frozenset({"client_update"})

    def client_update(self, update, ctx):
        if not self.strength:
            return update
        flat = torch.cat([t.flatten() for t in update.values()])
        scale = self.strength * flat.square().mean().sqrt()
        return {n: t + scale * torch.randn(t.shape, generator=ctx.rng, dtype=t.dtype) for n, t in update.items()}


@cache
def data():
    return build(Census(private=1500, public=600, evaluation=10, heldout=300), 5)


@cache
def schema():
    return read_schema(data().meta, data().public.x)


def scenario(sizes=(1, 16), subjects=4, training=None, hidden=(100, 100), **protocol):
    model = {"name": "mlp", "hidden": list(hidden)}
    sizes = list(sizes) if isinstance(sizes, tuple) else sizes
    protocol = {"ask": "rows", "batch_size": sizes, **protocol}
    return Scenario("cell", "tabular", "census", model, training or {}, protocol, subjects)


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


def price(where, defense=NONE, seed=0):
    return TRACK.price(where, defense, data(), seed, lambda items, **kwargs: items)


def attack(name="tableak", **params):
    return registry.get("attack", name)(**{"iterations": 250, "restarts": 6, **params})


def reconstruct(method, where, seed=0, defense=NONE):
    """(reconstruction, oracle, knowledge)."""
    released = through_a_file(target(where, seed, defense).released)
    oracle = TRACK.oracle(where, released, method, "GR", defense, seed)
    knowledge = TRACK.knowledge(where, released, data().public, data().meta, None)
    return method.run(oracle, knowledge, torch.Generator().manual_seed(seed)), oracle, knowledge


_FOUND = {}


def evaluated(method, where, seed=0, defense=NONE):
    """The evaluation of one cell; cells are computed once."""
    key = repr((method, where, seed, defense))
    if key not in _FOUND:
        answer = reconstruct(method, where, seed, defense)[0]
        _FOUND[key] = TRACK.evaluate(where, answer, target(where, seed, defense), data(), {}, seed)
    return _FOUND[key]


def mean(found, name="tabular_recovery", control=None):
    values = found.controls[control] if control else found.metrics
    return float(values[name].mean())
