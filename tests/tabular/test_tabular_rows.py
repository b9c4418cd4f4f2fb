"""Clients that train on rows: what they send, how they are drawn, what a federation learns, and how it is judged."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from rows_cells import TRACK, Noise, data, scenario, schema, target

from inversionbench.core.attack import Reconstruction
from inversionbench.core.defense import NONE, Defense
from inversionbench.core.errors import UserError
from inversionbench.tracks.tabular.clients import batches_of, choose, publish_rows
from inversionbench.tracks.tabular.evaluate_rows import evaluate_rows


def test_no_torch_for_checking():
    code = (
        "import sys\nfrom inversionbench.core.scenario import Scenario\n"
        "from inversionbench.tracks import get_track\n"
        "get_track('tabular').check(Scenario('s', 'tabular', 'census', {'name': 'mlp'}, {'rounds': 3},"
        " {'ask': 'rows', 'batch_size': [1, 8]}))\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ask": "row"}, r"protocol\.ask: 'row': did you mean 'rows'"),
        ({"sizes": [8, 8]}, "different numbers"),
        ({"sizes": 0}, r"protocol\.batch_size: expected a whole number of at least 1"),
        ({"bn": "eval_public"}, "unknown setting 'bn'"),
        ({"label": "known"}, "did you mean 'labels'"),
        ({"labels": "maybe"}, r"protocol\.labels"),
        ({"epochs": 2}, "sends: delta"),
        ({"training": {"round": 3}}, "did you mean 'rounds'"),
        ({"training": {"clients": 0}}, r"training\.clients: expected a whole number of at least 1"),
        ({"hidden": (0,)}, r"model\.hidden"),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(UserError, match=message):
        TRACK.check(scenario(**change))


def test_trees_send_no_updates():
    where = scenario()
    where.model["name"] = "tree"
    del where.model["hidden"]
    with pytest.raises(UserError, match="'mlp', not of 'tree'"):
        TRACK.check(where)


def test_rows_are_drawn_once_and_decoys_have_their_labels():
    batches, y = batches_of(scenario((1, 8), 3)), data().private.labels()
    index, decoy, rest = choose(y, batches, torch.Generator().manual_seed(0))
    own = [i for row, n in zip(index.tolist(), batches.sizes) for i in row[:n]]
    others = [i for row, n in zip(decoy.tolist(), batches.sizes) for i in row[:n]]
    assert len({*own, *others, *rest.tolist()}) == len(own) + len(others) + len(rest) == len(y)
    assert torch.equal(y[own], y[others])
    with pytest.raises(UserError, match="fewer subjects"):
        choose(y[:40], batches, torch.Generator())


def test_what_is_released_does_not_hold_the_rows():
    goal = target(scenario((1, 16)))
    assert set(goal.released) == {"state", "classes", "updates", "defense", "labels"}
    assert set(target(scenario((4,), 2, labels="hidden")).released) == {"state", "classes", "updates", "defense"}
    assert goal.truth["rows"].shape == (8, 16, schema().width)


def test_a_federation_learns_and_noise_costs():
    """Utility is measured with the defense in the loop; the untrained model guesses."""
    training = {"rounds": 20, "utility_rounds": 40, "clients": 4, "rate": 0.2}
    where = scenario((2,), 1, training=training)
    plain, noisy = target(where), target(where, defense=Noise(30.0))
    assert plain.utility["balanced_accuracy"] > 0.65
    assert plain.utility["accuracy"] > noisy.utility["accuracy"] + 0.05
    untrained = target(scenario((2,), 1))
    assert "accuracy" not in untrained.utility
    trained, first = plain.released["state"], untrained.released["state"]
    assert not torch.equal(trained["net.fc.weight"], first["net.fc.weight"])
    assert max(plain.truth["checks"]["match_at_truth_undefended"]) < 2e-6


def test_a_defense_that_invents_rows_leaves_none_to_recover():
    class Fewer(Defense):
        id = "fewer"
        hooks = frozenset({"training_set"})

        def training_set(self, x, y, rng):
            return x[:50], y[:50]

    with pytest.raises(UserError, match="no row to recover"):
        publish_rows(scenario((2,), 1), data(), Fewer(), 0, None)


def test_bytes_are_those_of_the_network():
    where = scenario((2,), 1, hidden=(30, 20))
    width = schema().width
    parameters = width * 30 + 30 + 30 * 20 + 20 + 20 * 2 + 2
    assert target(where).utility["bytes_up"] == target(where).utility["bytes_dense"] == 4 * parameters


def judged(rows, truth, sizes=(2,), subjects=2, **more):
    where = scenario(sizes, subjects)
    labels = torch.zeros(rows.shape[:2], dtype=torch.int64)
    answer = Reconstruction(rows, labels, notes={"labels": "given", **more})
    goal = {"rows": truth, "labels": labels, "checks": {}}
    return evaluate_rows(answer, goal, schema(), batches_of(where), data().public.x, 2, 0)


def test_the_truth_in_any_order_scores_1():
    truth = data().private.tensor(slice(0, 8)).view(2, 4, -1)
    rows = schema().decode(truth)[:, [2, 0, 3, 1]]
    found = judged(rows, truth, (4,), variants={"other": schema().decode(truth).flip(1)})
    for name in ("tabular_recovery", "categorical", "numeric", "whole_rows"):
        assert found.metrics[name].tolist() == [1.0, 1.0]
        assert found.controls["other"][name].tolist() == [1.0, 1.0]
    assert set(found.controls) == {"marginals", "mode", "other_batch", "other"}
    assert all(0.2 < found.controls[c]["tabular_recovery"].mean() < 0.9 for c in ("marginals", "mode", "other_batch"))


def test_one_wrong_cell_costs_its_share():
    truth = data().private.tensor(slice(0, 2)).view(2, 1, -1)
    rows = schema().decode(truth)
    sex = schema().names.index("sex")
    rows[0, 0, sex] = 1 - rows[0, 0, sex]
    found = judged(rows, truth, (1,))
    columns, categorical = len(schema().names), int(schema().categorical.sum())
    assert found.metrics["tabular_recovery"].tolist() == pytest.approx([1 - 1 / columns, 1.0])
    assert found.metrics["categorical"].tolist() == pytest.approx([1 - 1 / categorical, 1.0])
    assert found.metrics["whole_rows"].tolist() == [0.0, 1.0]
    assert found.unavailable == {"label_recovery": "the labels were given to the attacker"}


def test_rows_beyond_a_batch_count_nowhere():
    truth = data().private.tensor(slice(0, 8)).view(4, 2, -1)
    rows = schema().decode(truth)
    rows[:2, 1] = torch.nan
    found = judged(rows, truth, (1, 2))
    assert found.metrics["tabular_recovery"].tolist() == [1.0, 1.0]
    assert set(found.facts["by_batch_size"]["numeric"]) == {"1", "2"}


def test_the_headline_of_rows_is_a_metric_of_the_track():
    truth = data().private.tensor(slice(0, 4)).view(2, 2, -1)
    found = judged(schema().decode(truth), truth)
    assert set(found.metrics) <= set(TRACK.metrics)
    assert all(np.isfinite(v).all() for v in found.metrics.values())
    assert NONE.public_knowledge() == target(scenario((2,), 1)).released["defense"]
