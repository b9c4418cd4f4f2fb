"""Federated cells with a style-based prior, trained for seconds on the public crops of the same photographs."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from inversion_cells import TRACK, data, oracle_of, target, truth

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.protocol import read_protocol
from inversionbench.federation.oracle import gr_oracle
from inversionbench.metrics import pairwise
from inversionbench.priors.style import Style
from inversionbench.tracks.federated.target import global_model

RECIPE = Style(z_dim=16, w_dim=16, channels=(16, 16, 12), loss="hinge", r1=0.0, steps=80, batch=16,
               critic_rate=8e-4, critic_width=8, half_life=400, measure=40)  # fmt: skip


@cache
def prior(steps=None):
    """The trained prior; steps=0: an untrained one, which knows nothing of the photographs."""
    state = RECIPE.train(data().public, torch.Generator().manual_seed(0), lambda it, **_: it)
    made = RECIPE.load(state)
    if steps == 0:
        torch.manual_seed(0)
        made.generator.load_state_dict(RECIPE.networks((3, 16, 16))[0].state_dict())
    return made


def oracle_with(s, change, seed=0):
    """The cell's oracle with every update changed: change(name, tensor) -> tensor."""
    released = target(s, seed).released
    updates = {v: {n: change(n, t) for n, t in view.items()} for v, view in released["updates"].items()}
    model = global_model(s, NONE, released)
    return gr_oracle(model, updates, read_protocol(s.protocol, "protocol"), released["statistics"])


def run(name, s, seed=0, oracle=None, given=None, declared=None, **params):
    """One attack on one cell, with the prior (or `given`) among what it knows."""
    released = target(s, seed).released
    if declared is not None:
        released = {**released, "defense": declared}
    known = TRACK.knowledge(s, released, data().public, {"shape": data().shape}, given or prior())
    made = registry.get("attack", name)(**params)
    return made.run(oracle or oracle_of(s, seed), known, torch.Generator().manual_seed(seed + 7)).cpu()


def psnr(s, data, seed=0):
    """Mean PSNR of images (clients, batch, c, h, w), matched inside each batch; metrics alone, without the rest."""
    x = truth(s, seed)[0]
    groups = np.repeat(np.arange(x.shape[0]), x.shape[1])
    scores = pairwise(x.flatten(0, 1), data.flatten(0, 1), ("psnr",), match=True, groups=groups, seed=0)
    return scores.values["psnr"].mean()


def decoys(s):
    """An oracle that shows the updates of the decoys as if they were the clients'."""
    released = target(s).released
    updates = {"client": released["updates"]["decoy"], "decoy": released["updates"]["decoy"]}
    return gr_oracle(global_model(s, NONE, released), updates, read_protocol(s.protocol, "protocol"))


def noisy(ratio, seed=0):
    """A change for `oracle_with`: Gaussian noise whose norm is `ratio` times that of the tensor."""
    rng = torch.Generator().manual_seed(seed)

    def change(name, t):
        noise = torch.randn(t.shape, generator=rng)
        return t + ratio * noise * (t.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)).view(
            -1, *[1] * (t.ndim - 1)
        )

    return change
