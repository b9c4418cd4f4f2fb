"""EMI: one generator against several models of the same people, and how a scenario releases them."""

from __future__ import annotations

import pytest
import torch
from classifier_cells import TRACK, TRAINING, data, doubt, generator, knowledge, quiet, scenario, target
from torch import nn

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.errors import UserError
from inversionbench.oracle.base import InputSpec
from inversionbench.oracle.classifier import classifier_oracle
from inversionbench.tracks.classifier.attacks.emi import Emi
from inversionbench.tracks.classifier.track import network

SIBLINGS = [{"name": "cnn", "width": 10}, {"name": "mlp", "hidden": 64, "activation": "relu"}]
SETTING = {"steps": 60, "batch": 48, "width": 8, "z_dim": 16, "rate": 4e-3, "restarts": 4}
CACHE: dict = {}


def family():
    """A target with two siblings, each on one half of the private images."""
    if "family" not in CACHE:
        given = scenario(protocol={"siblings": SIBLINGS, "halves": 1}, training=TRAINING)
        CACHE["family"] = given, TRACK.train_target(given, NONE, data(), 0, quiet)
    return CACHE["family"]


def run(attack, nets, seed=0, **more):
    asked = classifier_oracle(nets[0], "WB", InputSpec(data().shape), data().classes, siblings=nets[1:])
    return attack.run(asked, knowledge(models=len(nets), **more), generator(seed)), asked


def test_siblings_are_released_and_opened_like_the_target():
    given, trained = family()
    assert [s["model"] for s in trained.released["siblings"]] == SIBLINGS
    known = TRACK.knowledge(given, trained.released, data().public, data().meta, None)
    assert known.models == 3
    asked = TRACK.oracle(given, trained.released, Emi(), "WB", NONE, 0)
    x = data().heldout.images()
    for k in range(3):
        made = asked.module(k)
        assert (made(x).argmax(1) == data().heldout.labels()).float().mean() > 3 / data().classes
    assert asked.ledger.passes == 3 * len(x)
    assert not torch.equal(asked.module(1)(x), asked.module(2)(x))


def test_siblings_do_not_change_the_target():
    plain = TRACK.train_target(scenario(), NONE, data(), 0, quiet)
    state = family()[1].released["state"]
    assert all(torch.equal(value, state[name]) for name, value in plain.released["state"].items())


def test_emi_convinces_the_target_more_than_an_untrained_generator():
    """Cross entropy over seeds: 0.2 to 0.6 for 5.4 to 7.7."""
    nets = [network(target().released)]
    made, _ = run(Emi(**SETTING), nets)
    none, _ = run(Emi(**{**SETTING, "steps": 0}), nets)
    assert doubt(made) < 0.5 * doubt(none)


def test_copies_of_one_model_are_worth_one():
    """Card check 3: the same weights twice train the same generator."""
    net = network(target().released)
    attack = Emi(**{**SETTING, "steps": 5})
    one, two = run(attack, [net])[0], run(attack, [net, net])[0]
    assert torch.allclose(one.data, two.data, atol=1e-3)
    other = [network({**family()[1].released, **s}) for s in family()[1].released["siblings"][:1]]
    assert not torch.allclose(one.data, run(attack, [net, *other])[0].data, atol=1e-2)


def test_passes_are_counted_for_every_model_and_can_be_made_equal():
    net = network(target().released)
    for equal, steps in ((False, 4), (True, 2)):
        attack = Emi(**{**SETTING, "steps": 4, "equal_passes": equal})
        _, asked = run(attack, [net, net])
        assert asked.ledger.passes == 2 * steps * attack.batch
        assert {row.phase for row in asked.ledger.rows} == {"train"}


@pytest.mark.parametrize("more", [{"statistics": 0.1}, {"adversarial": 0.5}, {"activation": 0.5}])
def test_every_term_acts_and_repeats(more):
    nets = [network(target().released)]
    plain = Emi(**{**SETTING, "steps": 3, "activation": 0.0})
    with_term = Emi(**{**SETTING, "steps": 3, "activation": 0.0, **more})
    a, b = run(with_term, nets)[0], run(with_term, nets)[0]
    assert torch.equal(a.data, b.data)
    assert not torch.equal(a.data, run(plain, nets)[0].data)


def test_activation_raises_the_features():
    nets = [network(target().released)]
    low, high = (run(Emi(**{**SETTING, "steps": 30, "activation": a}), nets)[0].data for a in (0.0, 1.0))
    assert nets[0].trace(high).features.abs().mean() > nets[0].trace(low).features.abs().mean()


def test_wrong_scenarios_are_refused():
    method = registry.describe("attack", "emi")
    assert not TRACK.accepts(scenario(), method)
    assert TRACK.accepts(scenario(protocol={"siblings": SIBLINGS}), method)
    with pytest.raises(UserError, match=r"siblings\[0\].name"):
        TRACK.check(scenario(protocol={"siblings": [{"name": "cmm"}]}))
    with pytest.raises(UserError, match="list of models"):
        TRACK.check(scenario(protocol={"siblings": 3}))
    with pytest.raises(ValueError, match="1 to 1"):
        run(Emi(models=2), [nn.Identity()])
