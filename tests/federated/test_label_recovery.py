"""Rows for labels alone: every rule through the workflow's calls, and who meets whom."""

import pytest
from federated_cells import CONVNET, TRACK, evaluate, reconstruct, scenario, target

from inversionbench.core import registry
from inversionbench.core.errors import AccessDenied, UserError

ONE = scenario(CONVNET, subjects=4, labels="hidden", ask="labels")
SIX = scenario(CONVNET, subjects=4, batch_size=6, labels="hidden", ask="labels")
RULES = ("row_sum", "bias", "negative_set", "min_row", "wainakh", "bias_corrected", "geng", "ilrg", "evolution")


def score(where, rule):
    done = evaluate(where, target(where), reconstruct(where, target(where), "label_recovery", rule=rule))
    assert len(done.groups) == 4
    return done


@pytest.mark.parametrize("rule", [*RULES, "inner_product"])
def test_one_image_gives_its_label_away(rule):
    done = score(ONE, rule)
    assert done.metrics["label_recovery"].tolist() == done.metrics["labels_exact"].tolist() == [1.0] * 4
    assert done.controls["blind_guess"]["label_recovery"].mean() < 0.3


def test_rules_that_count_beat_rules_that_sort_where_labels_repeat():
    found = {rule: score(SIX, rule).metrics["label_recovery"].mean() for rule in RULES}
    blind = score(SIX, "bias").controls["blind_guess"]["label_recovery"].mean()
    assert min(found["bias_corrected"], found["geng"], found["ilrg"]) > 0.9
    assert max(found["row_sum"], found["bias"], found["min_row"]) < found["bias_corrected"]
    assert all(blind < value for value in found.values())


def test_trained_models_are_told_apart_by_their_epochs():
    where = scenario(CONVNET, training={"rounds": 3, "clients": 2, "batch": 10}, labels="hidden", ask="labels")
    assert score(where, "bias").facts["target_epochs"] == pytest.approx(60 / 120)
    assert score(where, "bias").facts["local_steps"] == 1


def test_scenarios_of_labels_meet_attacks_on_labels():
    labels, images = (registry.describe("attack", name) for name in ("label_recovery", "inverting_gradients"))
    assert TRACK.accepts(ONE, labels)
    assert not TRACK.accepts(ONE, images)
    assert TRACK.accepts(scenario(), images)
    assert not TRACK.accepts(scenario(), labels)


def test_what_cannot_be_asked():
    with pytest.raises(AccessDenied, match="one image"):
        reconstruct(SIX, target(SIX), "label_recovery", rule="inner_product")
    with pytest.raises(UserError, match="row_sum"):
        registry.get("attack", "label_recovery")(rule="row_sums")
    with pytest.raises(UserError, match="labels: hidden"):
        TRACK.check(scenario(ask="labels"))
