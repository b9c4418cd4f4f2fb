"""What the track publishes, keeps for itself, refuses and repeats."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tabular_cells import TRACK, attack, build, data, reconstruct, scenario, target, through_a_file

from inversionbench.core import registry
from inversionbench.core.defense import NONE, Defense
from inversionbench.core.errors import UserError
from inversionbench.core.scenario import Scenario
from inversionbench.data.dosing import Dosing
from inversionbench.models import columns
from inversionbench.plan.params import Entry
from inversionbench.tracks.tabular.target import Rows, draw, swap

QUESTION = columns.ask(data().meta)


def rng(seed=0):
    return np.random.default_rng(seed)


def released_bytes(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_no_torch_for_checking():
    code = (
        "import sys\nfrom inversionbench.core.scenario import Scenario\n"
        "from inversionbench.tracks import get_track\n"
        "get_track('tabular').check(Scenario('s', 'tabular', 'dosing', {'name': 'mlp'}, subjects=100))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "tre"}}, r"model\.name: unknown model 'tre': did you mean 'tree'"),
        ({"model": {"name": "tree", "dept": 3}}, "did you mean 'depth'"),
        ({"model": {"name": "tree", "depth": 0}}, r"model\.depth: expected a whole number of at least 1 or nothing"),
        ({"model": {"name": "tree", "leaf": None}}, r"model\.leaf"),
        ({"model": {"name": "mlp", "hidden": 64}}, r"model\.hidden: expected a list"),
        ({"training": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"model": {"name": "tree"}, "training": {"epochs": 3}}, "'tree' takes no 'epochs'"),
        ({"training": {"optimiser": "adamm"}}, "did you mean 'adam'"),
        ({"training": {"schedule": 3}}, r"training\.schedule"),
        ({"training": {"rate": "fast"}}, r"training\.rate"),
        ({"training": {"members": 0}}, r"training\.members"),
        ({"training": {"swap": 1.5}}, r"training\.swap: expected a number from 0 to 1"),
        ({"protocol": {"sensitiv": "genotype"}}, "did you mean 'sensitive'"),
        ({"protocol": {"sensitive": 3}}, "expected the name of a column"),
        ({"subjects": 8}, "subjects: expected at least 80"),
    ],
)
def test_bad_scenarios(change, message):
    given = {"model": {"name": "mlp"}, "subjects": 100, **change}
    with pytest.raises(UserError, match=message):
        TRACK.check(Scenario("s", "tabular", "dosing", **given))


@pytest.mark.parametrize(
    ("training", "subjects", "message"),
    [({"members": 2000}, 100, "has 1200 private rows, 2000"), ({"members": 100}, 300, "need 150 members")],
)
def test_too_few_rows(training, subjects, message):
    here = Scenario("s", "tabular", "dosing", {"name": "tree"}, training, {}, subjects)
    with pytest.raises(UserError, match=message):
        TRACK.train_target(here, NONE, data(), 0, None)


def test_the_sensitive_column_never_reaches_the_attack():
    """Records hold the known columns of the victims and nothing else; no other file holds the rest."""
    goal = target()
    _, victims = draw(data(), 400, 800, rng(0))
    released = through_a_file(goal.released)
    assert released["records"].shape == (800, data().shape[0] - 3)
    assert np.array_equal(released["records"].numpy(), QUESTION.known(victims.rows.x))
    assert np.array_equal(goal.truth["value"].numpy(), QUESTION.truth(victims.rows.x))
    assert np.array_equal(goal.truth["member"].numpy(), victims.member)
    assert not {"value", "member", "flips", "rows"} & set(released)
    _, _, knowledge = reconstruct(attack("mode"))
    for hidden in ("value", "member", "truth", "private", "model"):
        assert hidden not in knowledge
    whole = {tuple(row) for row in victims.rows.x.tolist()}
    assert not whole & {tuple(row) for row in np.asarray(knowledge.public.x).tolist()}


def test_other_values_of_the_non_members_change_nothing_that_is_released():
    """Every byte of what the attack step is given is the same; only the truth differs."""
    left = rng(0).permutation(len(data().private))[400:]
    rows = Rows(np.array(data().private.x), np.array(data().private.y))
    x = rows.x.copy()
    x[left] = swap(rows.take(left), QUESTION, 1.0, rng(1)).x
    other = replace(data(), private=replace(data().private, x=x))
    done = TRACK.train_target(scenario(swap=0.0), NONE, other, 0, None)
    assert released_bytes(done.released) == released_bytes(target().released)
    changed = (done.truth["value"] != target().truth["value"])
    assert changed[~done.truth["member"]].float().mean() > 0.3
    assert not changed[done.truth["member"]].any()


def test_members_and_others_are_dealt_from_one_pack():
    members, victims = draw(data(), 400, 800, rng(3))
    trained = {tuple(row) for row in members.x.tolist()}
    inside = np.array([tuple(row) in trained for row in victims.rows.x.tolist()])
    assert np.array_equal(inside, victims.member)
    assert victims.member.sum() == 400
    private = {tuple(row) for row in np.asarray(data().private.x).tolist()}
    assert all(tuple(row) in private for row in victims.rows.x.tolist())
    assert abs(victims.member[:400].mean() - 0.5) < 0.1  # their place says nothing
    _, others = draw(build(Dosing(private=100, public=50, evaluation=10, heldout=60), 0), None, 100, rng(0))
    assert others.member.sum() == 50  # all private rows are members: held-out rows stand in


def test_swapping_moves_the_encoded_columns_together():
    rows = Rows(np.array(data().private.x), np.array(data().private.y))
    same = swap(rows, QUESTION, 0.0, rng())
    assert np.array_equal(same.x, rows.x)
    half, full = swap(rows, QUESTION, 0.5, rng()), swap(rows, QUESTION, 1.0, rng())
    for swapped in (half, full):
        assert np.array_equal(QUESTION.known(swapped.x), QUESTION.known(rows.x))
        values = [np.bincount(QUESTION.truth(r.x)).tolist() for r in (swapped, rows)]
        assert values[0] == values[1]  # a permutation
        assert (swapped.x[:, QUESTION.start : QUESTION.stop].sum(1) == 1).all()
    moved = [(QUESTION.truth(r.x) != QUESTION.truth(rows.x)).mean() for r in (half, full)]
    assert 0.2 < moved[0] < 0.4 < moved[1]
    assert np.array_equal(swap(rows, QUESTION, 0.5, rng()).x, half.x)


@pytest.mark.parametrize("model", ["tree", "early_mlp"])
def test_same_seed_same_bytes(model):
    one = target(model)
    two = TRACK.train_target(scenario(model, swap=0.0), NONE, data(), 0, None)
    assert released_bytes(one.released) == released_bytes(two.released)
    assert released_bytes(one.truth) == released_bytes(two.truth)
    assert one.utility == two.utility
    assert released_bytes(one.released) != released_bytes(target(model, 1).released)


def test_published_statistics_are_of_public_rows():
    released = target().released
    public = data().public
    assert torch.equal(released["confusion"].sum(1).long(), torch.bincount(torch.from_numpy(public.y), minlength=5))
    assert np.allclose(released["marginal"], np.bincount(QUESTION.truth(public.x)) / len(public.y))
    assert released["confusion"].diagonal().sum() / len(public.y) < 0.6  # a full tree knows its members by heart


def test_utility():
    found = target("tree").utility
    assert found["train_accuracy"] == 1.0
    assert 0.25 < found["accuracy"] < 0.6
    again = TRACK.utility_of(scenario("tree"), target("tree"), NONE, data(), 0)
    assert again == found


class Loud(Defense):
    id = "loud"
    hooks = frozenset({"loss"})


def test_a_tree_has_no_training_steps_to_defend():
    with pytest.raises(UserError, match="'loud' acts through loss; 'tree' has no such step"):
        TRACK.train_target(scenario("tree"), Loud(), data(), 0, None)


class Halving(Defense):
    """Trains on every second row."""

    id = "halving"
    hooks = frozenset({"training_set"})

    def training_set(self, x, y, rng):
        return x[::2], y[::2]


@pytest.mark.parametrize("model", ["tree", "early_mlp"])
def test_the_training_set_hook_acts(model):
    plain, halved = target(model), TRACK.train_target(scenario(model), Halving(), data(), 0, None)
    assert released_bytes(plain.released["model"]) != released_bytes(halved.released["model"])
    assert torch.equal(plain.released["records"], halved.released["records"])  # the same victims
    assert halved.utility["train_accuracy"] < plain.utility["train_accuracy"]


ACTING = [name for name in registry.methods("defense")
          if Entry(name, "defense", name).suits(TRACK, scenario("early_mlp"))]  # fmt: skip


@pytest.mark.parametrize("name", ACTING)
def test_strength_0_is_no_defense_bit_for_bit(name):
    """Through training, release and attack."""
    defense = registry.get("defense", name)(strength=0.0)
    model = "early_mlp"
    done = TRACK.train_target(scenario(model, swap=0.0), defense, data(), 0, None)
    assert released_bytes(done.released) == released_bytes(target(model).released)
    for access in ("LO", "BB-S"):
        method = attack("mi_attribute", access=access)
        plain, _, _ = reconstruct(method, model)
        other, _, _ = reconstruct(method, model, defense=defense, trained=NONE)
        assert torch.equal(plain.data, other.data)
        assert torch.equal(plain.scores, other.scores)
