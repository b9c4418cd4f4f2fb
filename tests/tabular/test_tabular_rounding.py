"""Rounded scores: what they cost the attack that reads scores, and that nothing else changes.

Rounding takes information from scores that are neither 0 nor 1. A full tree has no such scores, so it keeps
its leak; and members of an overfitted network have scores near 1, which survive rounding better than those of
non-members, so that members lose little and non-members more: the gap between them can grow. Since anybody can round
scores, that is no leak which the defense brought about.
"""

from __future__ import annotations

import pytest
import torch
from tabular_cells import TRACK, attack, data, metrics, reconstruct, scenario, target

from inversionbench.core import registry
from inversionbench.core.defense import NONE

if "confidence_rounding" not in registry.methods("defense"):
    pytest.skip("there is no defense 'confidence_rounding'", allow_module_level=True)

SCORES = attack("mi_attribute", access="BB-S", belief="uniform")


def rounding(strength):
    return registry.get("defense", "confidence_rounding")(strength=strength)


@pytest.mark.parametrize("access", ["LO", "WB"])
def test_labels_and_weights_are_untouched(access):
    method = attack("mi_attribute", access=access)
    plain, _, _ = reconstruct(method, "pruned_tree")
    rounded, _, _ = reconstruct(method, "pruned_tree", defense=rounding(0.5), trained=NONE)
    assert torch.equal(plain.data, rounded.data)
    assert torch.equal(plain.scores, rounded.scores)


@pytest.mark.parametrize("model", ["pruned_tree", "mlp"])
def test_accuracy_is_untouched_and_the_scores_say_less(model):
    found = [TRACK.utility_of(scenario(model), target(model), rounding(r), data(), 0) for r in (0.0, 0.1, 0.5, 1.0)]
    assert len({f["accuracy"] for f in found}) == 1
    assert found[-1]["nll"] > found[0]["nll"] + 0.5


@pytest.mark.parametrize("model", ["pruned_tree", "mlp"])
def test_coarse_scores_give_less_of_members(model):
    plain, coarse = metrics(SCORES, model), metrics(SCORES, model, defense=rounding(1.0), trained=NONE)
    assert coarse["balanced_accuracy"] < plain["balanced_accuracy"] - 0.03
    assert coarse["balanced_accuracy_nonmembers"] < plain["balanced_accuracy_nonmembers"]


def test_the_gap_of_a_pruned_tree_falls():
    plain, coarse = metrics(SCORES, "pruned_tree"), metrics(SCORES, "pruned_tree", defense=rounding(1.0), trained=NONE)
    assert coarse["member_gap"] < plain["member_gap"] - 0.02


def test_a_full_tree_has_nothing_to_round():
    method = attack("mi_attribute", access="BB-S")
    plain, _, _ = reconstruct(method, "tree")
    rounded, _, _ = reconstruct(method, "tree", defense=rounding(0.5), trained=NONE)
    assert torch.equal(plain.data, rounded.data)


@pytest.mark.parametrize("model", ["pruned_tree", "mlp"])
@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
def test_an_attacker_who_rounds_sees_what_the_defense_would_show(model, step):
    """Bit for bit: so the undefended target leaks to him at least what the defended one leaks."""
    himself, _, _ = reconstruct(attack("mi_attribute", access="BB-S", belief="uniform", rounding=step), model)
    defended, _, _ = reconstruct(SCORES, model, defense=rounding(step), trained=NONE)
    assert torch.equal(himself.data, defended.data)
    assert torch.equal(himself.scores, defended.scores)
    assert not torch.equal(himself.scores, reconstruct(SCORES, model)[0].scores)
