"""Rows under the defenses that need nothing but an update, and an attacker who knows what they do."""

from __future__ import annotations

import pytest
import torch
from rows_cells import TRACK, attack, data, evaluated, mean, reconstruct, scenario, schema, target

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.errors import UserError
from inversionbench.metrics.tabular_recovery import tabular_recovery

ACTING = {
    "dgc": 0.9, "dgp": 0.9, "pfgd": 0.9, "mixed_quantization": 3, "autoencoder_compression": 8, "local_dp": 0.3,
    "dp_sgd": 1.0, "secure_aggregation": 2, "cahe": 1, "fragmentation_shuffle": 8,
}  # fmt: skip
SMALL = {"hidden": (10, 8)}
TWO = scenario((2,), 4)


def defense(name, strength):
    toy = {"clients": 2, "dimension": 64, "identity": 4, "slots": 256}  # INSECURE: sizes for tests
    smaller = {"cahe": toy, "autoencoder_compression": {"first_steps": 5}}
    return registry.get("defense", name)(strength=strength, **smaller.get(name, {}))


def sent(goal):
    return goal.released["updates"]["client"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(t, b[n]) for n, t in a.items())


@pytest.mark.parametrize("name", ACTING)
def test_strength_0_is_no_defense_and_each_acts(name):
    where = scenario((1, 3), 3, **SMALL)
    plain, zero, some = (target(where, defense=d) for d in (NONE, defense(name, 0.0), defense(name, ACTING[name])))
    assert same(sent(plain), sent(zero))
    assert same(plain.released["state"], zero.released["state"])
    assert same(plain.released["updates"]["decoy"], zero.released["updates"]["decoy"])
    assert all(torch.equal(plain.truth[n], some.truth[n]) for n in ("rows", "labels", "decoys"))
    assert not same(sent(plain), sent(some))
    assert plain.truth["checks"]["match_at_truth_undefended"] == zero.truth["checks"]["match_at_truth_undefended"]
    if name != "dp_sgd":  # acts before the update is there
        assert some.utility["cos_sent_true"] < 0.999 < plain.utility["cos_sent_true"]


def test_a_session_is_filled_up_and_the_server_sees_its_mean():
    where = scenario((1, 3), 3, **SMALL)
    plain, summed = target(where), target(where, defense=defense("secure_aggregation", 2))
    assert summed.released["defense"]["groups"] == [[0, 1], [2, 6], [3, 4], [5, 7]]  # 6 and 7 are attacked by nobody
    for name, seen in sent(summed).items():
        for first in (0, 3):
            assert torch.equal(seen[first], seen[first + 1])
            mean_of_two = sent(plain)[name][first : first + 2].mean(0)
            assert torch.allclose(seen[first], mean_of_two, atol=2**-19)
        assert not torch.allclose(seen[2], sent(plain)[name][2], atol=2**-19)
    with pytest.raises(UserError, match="fewer subjects, or smaller sessions"):
        target(scenario((100,), 7, **SMALL), defense=defense("secure_aggregation", 4))


def test_who_looks_matters():
    """A client in collusion with the server takes its own update out of the sum: of two, the other's is left."""
    who = ("server", "eavesdropper", "client", "collusion")
    views = {w: target(scenario((2,), 4, observer=w, **SMALL), defense=defense("secure_aggregation", 2)) for w in who}
    own = sent(target(scenario((2,), 4, **SMALL)))
    for name, t in own.items():
        assert torch.allclose(sent(views["collusion"])[name], t, atol=2**-19)
        for w in ("server", "eavesdropper", "client"):
            assert not torch.allclose(sent(views[w])[name], t, atol=1e-4)


@pytest.mark.parametrize("name", ["dgc", "dgp", "pfgd"])
def test_who_knows_what_was_sent_reads_it(name):
    """Cells right with 90 % of the entries or coefficients gone, over 4 seeds of 4 clients with 2 rows: naive 0.83
    (DGC), 0.57 (DGP), 0.81 (pFGD); who compares what was sent 1.00, 0.95, 0.98; gains 0.17, 0.38, 0.17, each with a
    standard error of 0.04. Without defense 1.00."""
    gains = [
        mean(evaluated(attack(restarts=3, match="known"), TWO, seed, defense(name, 0.9)))
        - mean(evaluated(attack(restarts=3), TWO, seed, defense(name, 0.9)))
        for seed in range(3)
    ]
    assert sum(gains) / 3 > 0.03


def test_a_sum_is_inverted_as_one_batch():
    """Cells right in the sums of two clients with one row each, no matter whose row is whose, over 8 seeds of two sums:
    who knows that it is a sum 1.00 in every seed, who does not 0.65 (standard error 0.03)."""
    hidden, where = defense("secure_aggregation", 2), scenario((1,), 4)

    def cells(match, seed):
        found = reconstruct(attack(restarts=3, match=match), where, seed, hidden)[0].data[:, 0].numpy()
        true = schema().decode(target(where, seed, hidden).truth["rows"])[:, 0].numpy()
        kinds = schema().categorical, schema().unit.numpy()
        sums = [tabular_recovery(found[i : i + 2], true[i : i + 2], *kinds).accuracy.mean() for i in (0, 2)]
        return float(sum(sums)) / 2

    knowing, naive = ([cells(match, seed) for seed in range(3)] for match in ("known", "plain"))
    assert sum(knowing) / 3 > 0.85
    assert sum(knowing) / 3 > sum(naive) / 3 + 0.1


def test_rows_of_a_sum_are_filed_under_the_labels_they_were_searched_with():
    hidden = defense("secure_aggregation", 2)
    found = reconstruct(attack(iterations=5, restarts=3, match="known"), TWO, 0, hidden)[0]
    assert found.notes["clients_in_sum"] == 2
    assert torch.isfinite(found.data).all()
    assert torch.equal(found.labels, target(TWO, 0, hidden).truth["labels"])


def test_labels_of_strangers_in_a_sum_are_recovered():
    where = scenario((2,), 3)
    found, _, knowledge = reconstruct(attack(iterations=5, match="known"), where, 0, defense("secure_aggregation", 2))
    assert knowledge.defense["groups"] == [[0, 1], [2, 3]]
    assert found.data.shape == (3, 2, len(data().meta["columns"]))
    assert torch.equal(found.labels, target(where, 0, defense("secure_aggregation", 2)).truth["labels"])


def test_a_sum_of_weight_differences_is_refused():
    where = scenario((2,), 2, sends="delta", epochs=2, **SMALL)
    with pytest.raises(Exception, match="sends: gradient"):
        reconstruct(attack(iterations=2, match="known"), where, 0, defense("secure_aggregation", 2))


def test_the_price_is_that_of_the_same_federation():
    """Sums change nothing but the last bits: same accuracy; pruning sends a seventh."""
    training = {"utility_rounds": 20, "utility_seeds": 2, "clients": 4}
    where = scenario((2,), 1, training=training, **SMALL)

    def price(d):
        return TRACK.price(where, d, data(), 0, lambda items, **kwargs: items)

    hidden, sparse = defense("secure_aggregation", 2), defense("dgc", 0.9)
    (plain, trials), (summed, _), (pruned, _) = map(price, (NONE, hidden, sparse))
    assert abs(summed["accuracy"] - plain["accuracy"]) < 0.02
    assert pruned["bytes_round"] < plain["bytes_round"] / 3
    assert plain["diverged"] == 0
    assert len(trials) == 2
