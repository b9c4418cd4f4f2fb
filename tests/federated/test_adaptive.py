"""Attacks that know the defense against the same attack that does not: each must gain on its defense."""

import pytest
import torch
from federated_cells import psnr, reconstruct, scenario, target

from inversionbench import registry
from inversionbench.attacks.federated._adaptive import compared
from inversionbench.attacks.federated._layout import layout_of
from inversionbench.defenses.base import NONE
from inversionbench.errors import UserError


def defended(name, strength, **params):
    return registry.get("defense", name)(strength=strength, **params)


_MADE: dict = {}


def run(where, defense, attack="inverting_gradients", **params):
    """Mean PSNR of an attack on a scenario under a defense."""
    key = repr((where, defense))
    if key not in _MADE:
        _MADE[key] = target(where, defense)
    answer = reconstruct(where, _MADE[key], attack, defense=defense, **params)
    return psnr(where, _MADE[key], answer), answer


def test_what_is_compared():
    layout = layout_of({"a": (2, 2), "b": (2,), "c": (3,)})
    seen = torch.tensor([[1.0, 0, 2, 0, 1, 1, 0, 5, 6]])
    assert compared("plain", seen, layout, {"layer": "a"}) is None
    assert compared("mask", seen, layout, {})[0].tolist() == [1, 0, 1, 0, 1, 1, 0, 1, 1]
    assert compared("drop_layer", seen, layout, {"layer": "a"})[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert compared("columns", seen, layout, {"layer": "a"})[0].tolist() == [1, 0, 1, 0, 1, 1, 1, 1, 1]
    assert compared("skip_vb", seen, layout, {"bottleneck": ["b"]})[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert compared("drop_layer", seen, layout, {}) is None  # nothing is known
    with pytest.raises(UserError, match="drop_layer"):
        compared("drop_layers", seen, layout, {})


@pytest.fixture(scope="module")
def where():
    return scenario(subjects=4)


STEPS = {"steps": 120}


def test_soteria_protects_one_layer_only(where):
    defense = defended("soteria", 60.0)
    plain, _ = run(where, defense, **STEPS)
    dropped, answer = run(where, defense, match="drop_layer", **STEPS)
    columns, _ = run(where, defense, match="columns", **STEPS)
    undefended, _ = run(where, NONE, **STEPS)
    assert answer.notes["adaptive"] is True
    assert min(dropped, columns) > plain + 2
    assert max(dropped, columns) > undefended - 2
    harder, _ = run(where, defended("soteria", 10.0), match="drop_layer", **STEPS)
    assert harder == pytest.approx(dropped, abs=1e-6)  # the layer is out: its pruning cannot matter


@pytest.mark.parametrize(("name", "strength", "params", "gain"), [("dgc", 0.99, {}, 0.7), ("dgp", 0.5, {}, 2.0)])
def test_pruned_entries_are_known(where, name, strength, params, gain):
    defense = defended(name, strength, **params)
    plain, naive = run(where, defense, **STEPS)
    masked, _ = run(where, defense, match="mask", **STEPS)
    assert masked > plain + gain
    assert "adaptive" not in naive.notes


def test_precode_protects_what_is_behind_its_bottleneck(where):
    defense = defended("precode", 16.0)
    plain, _ = run(where, defense, **STEPS)
    skipped, _ = run(where, defense, match="skip_vb", **STEPS)
    undefended, _ = run(where, NONE, **STEPS)
    assert plain < undefended - 4
    assert skipped > plain + 3
