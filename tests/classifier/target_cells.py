"""Target-aware priors of the tiny classifier track, each trained once per test session."""

from __future__ import annotations

import functools
from dataclasses import replace

from classifier_cells import TRACK, data, generator, quiet, scenario, target

from inversionbench.priors.dcgan import Dcgan
from inversionbench.priors.kedmi_gan import KedmiGan
from inversionbench.priors.plg_gan import PlgGan
from inversionbench.priors.students import StudentsRecipe
from inversionbench.tracks.classifier.track import Classifier

DCGAN = Dcgan(z_dim=16, width=8, upsample="nearest", loss="hinge", steps=320, batch=32, rate=2e-3, critic_rate=2e-3,
              critic_steps=1, ema=0.95, measure=80, patience=5)  # fmt: skip
RECIPES = {
    "kedmi_gan": KedmiGan(critic="classifier", width=8, warm=True, steps=20, batch=32, rate=1e-4, critic_rate=4e-4,
                          critic_steps=2, distil_epochs=6, ema=0.95),
    "plg_gan": PlgGan(form="shared", warm=True, top=20, steps=240, batch=32, rate=3e-3, critic_rate=3e-3,
                      critic_steps=1, target_share=0.5, ema=0.95),
    "students": StudentsRecipe(models=({"name": "cnn", "width": 8}, {"name": "cnn", "width": 6}), epochs=6,
                               optimiser="adamw", rate=4e-3, schedule="one_cycle", batch=32),
}  # fmt: skip


@functools.cache
def base():
    """P1 of the public faces."""
    return DCGAN.load(DCGAN.train(data().public, generator(7), quiet))


def asked(seed: int = 5):
    """A white-box oracle for the training of a prior."""
    recipe = RECIPES["students"]
    return TRACK.oracle(scenario(), target().released, recipe, recipe.level, _none(), seed)


def _none():
    from inversionbench.core.defense import NONE

    return NONE


def train(recipe, seed: int = 11):
    """State, and the oracle that was asked."""
    oracle = asked()
    return recipe.train(data().public, generator(seed), quiet, target=oracle, base=base()), oracle


@functools.cache
def state(name: str):
    return train(RECIPES[name])


def loaded(name: str):
    return base() if name == "dcgan" else RECIPES[name].load(state(name)[0])


@functools.cache
def run(attack, seed: int = 0):
    """The reconstruction of an attack with the priors that it declares, and its oracle; once per session."""
    return again(attack, seed)


def again(attack, seed: int = 0):
    """The same, computed again."""
    needed = attack.prior[attack.base] if isinstance(attack.prior, dict) else (attack.prior,)
    priors = {name: loaded(name) for name in needed}
    track = Classifier()
    known = track.knowledge(scenario(), target().released, data().public, data().meta, priors[needed[0]])
    known.grant(priors=priors)
    oracle = track.oracle(scenario(), target().released, attack, attack.level, _none(), seed)
    return attack.run(oracle, known, generator(seed)), oracle


__all__ = ["RECIPES", "again", "asked", "base", "loaded", "replace", "run", "state", "train"]
