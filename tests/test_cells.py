"""From parameters to cells: what is crossed, what is inert, which target is attacked."""

from __future__ import annotations

import pytest
from tests.test_params import GOOD, changed

from inversionbench.core.errors import UserError
from inversionbench.plan import cells
from inversionbench.plan.params import check


def test_every_attack_meets_every_defense_of_its_track():
    found = {group.key for group in cells.groups(check(GOOD))}
    assert found == {
        f"tree/{attack}/{defense}"
        for attack in ("mi_attribute", "labels")
        for defense in ("none", "confidence_rounding")
    }


def test_release_only_defense_is_inert_against_labels_and_shares_the_undefended_target():
    params = check(changed("scenarios.tree.seeds", [3, 4]))
    inert = cells.find(params, "tree/labels/confidence_rounding")
    active = cells.find(params, "tree/mi_attribute/confidence_rounding")
    assert inert.inert
    assert (inert.strengths, inert.seeds) == ((0.5,), (3,))  # once, at the strongest, as a control
    assert not active.inert
    assert [key for key, _, _ in active.cells()] == [
        f"tree/mi_attribute/confidence_rounding/{s}/{n}" for s in ("0.1", "0.5") for n in (3, 4)
    ]
    assert cells.targets(params) == [("tree", "none", 0.0)]


def test_restrictions():
    params = check(changed("attacks.labels", {"method": "mi_attribute", "defenses": ["none"]}))
    assert "tree/labels/confidence_rounding" not in {g.key for g in cells.groups(params)}
    params = check(changed("defenses.confidence_rounding", {"strengths": [1], "scenarios": []}))
    assert all(g.defense == "none" for g in cells.groups(params))


def test_unknown_group_gets_the_nearest_name():
    with pytest.raises(UserError, match="tree/mi_attribute/none"):
        cells.find(check(GOOD), "tree/mi_atribute/none")
