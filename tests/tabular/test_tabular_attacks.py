"""Attribute inference: the table of rows and what each must beat, and the equations against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tabular_cells import attack, metrics, reconstruct, target

from inversionbench.core.attack import Knowledge
from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.models import trees
from inversionbench.models.columns import Question
from inversionbench.oracle.base import Ledger, Oracle
from inversionbench.oracle.classifier import WhiteBox
from inversionbench.tracks.tabular.attacks import _posterior

MODE, IMPUTATION = attack("mode"), attack("imputation")
SWAPPED = attack("swapped_column")

# attack, target, the control that members must beat, by how much in balanced accuracy, smallest member gap
ROWS = [
    (attack("mi_attribute", access="LO"), "tree", MODE, 0.15, 0.08),
    (attack("mi_attribute", access="LO", belief="uniform"), "tree", MODE, 0.25, 0.12),
    (attack("mi_attribute", access="BB-S"), "tree", IMPUTATION, 0.05, 0.2),
    (attack("mi_attribute", access="BB-S", belief="uniform"), "tree", IMPUTATION, 0.05, 0.2),
    (attack("mi_attribute", access="BB-S", belief="conditional"), "tree", IMPUTATION, 0.05, 0.2),
    (attack("mi_attribute", access="WB"), "tree", IMPUTATION, 0.05, 0.2),
    (attack("mi_attribute", access="BB-S", belief="uniform"), "mlp", IMPUTATION, 0.0, 0.05),
    (attack("mi_attribute", access="BB-S"), "mlp", SWAPPED, 0.2, 0.05),
]
LABELS, SCORES, COUNTS = (attack("mi_attribute", access=level) for level in ("LO", "BB-S", "WB"))


def name_of(row):
    method, model, control = row[:3]
    return f"{method.access}-{method.belief}-{model}-{control.id}"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_members_beat_the_control(row):
    method, model, control, margin, gap = row
    found, base = metrics(method, model), metrics(control, model)
    assert found["balanced_accuracy"] > base["balanced_accuracy"] + margin
    assert found["member_gap"] > gap


@pytest.mark.parametrize("access", ["LO", "BB-S", "WB"])
@pytest.mark.parametrize("belief", ["marginal", "uniform"])
def test_a_swapped_column_leaves_nothing(access, belief):
    found = metrics(attack("swapped_column", access=access, belief=belief), seeds=(0, 1, 2))
    assert abs(found["balanced_accuracy"] - 1 / 3) < 0.05
    assert abs(found["member_gap"]) < 0.05


def test_swapping_the_column_of_more_rows_leaves_less():
    """Means over 12 targets 0.78, 0.43 and 0.335, standard errors 0.016, 0.014 and 0.004."""
    seeds = tuple(range(12))
    found = [metrics(SCORES, swap=share, seeds=seeds)["balanced_accuracy"] for share in (0.0, 0.5, 1.0)]
    assert found[0] > found[1] + 0.15
    assert found[1] > found[2] + 0.045
    assert abs(found[2] - 1 / 3) < 0.02


@pytest.mark.parametrize("method", [MODE, IMPUTATION, attack("imputation", response=False)], ids=repr)
def test_controls_without_the_target_have_no_gap(method):
    found = metrics(method)
    assert abs(found["member_gap"]) < 0.08
    _, oracle, _ = reconstruct(method)
    assert oracle.ledger.queries == oracle.ledger.passes == 0
    assert type(method).control


def test_the_response_helps_the_imputer():
    alone = metrics(attack("imputation", response=False))
    assert metrics(IMPUTATION)["balanced_accuracy"] > alone["balanced_accuracy"] + 0.05


def test_overfitting_makes_the_gap():
    gap = {model: metrics(SCORES, model)["member_gap"] for model in ("tree", "pruned_tree", "mlp", "early_mlp")}
    assert gap["tree"] > gap["pruned_tree"] + 0.05
    assert gap["mlp"] > gap["early_mlp"] + 0.05
    assert abs(gap["early_mlp"]) < 0.08


def test_where_the_prediction_never_flips_labels_say_nothing():
    """Fredrikson et al.: with one prediction for all values only the marginal is left."""
    answer, _, knowledge = reconstruct(LABELS, "early_mlp")
    flips = target("early_mlp").truth["flips"]
    assert 0 < int((~flips).sum()) < len(flips)
    mode = int(knowledge.marginal.argmax())
    assert (answer.data[~flips] == mode).all()
    value = target("early_mlp").truth["value"]
    assert (answer.data == value)[flips].float().mean() > (value == mode)[flips].float().mean() + 0.05


@pytest.mark.parametrize(("method", "queries", "passes"), [(LABELS, 2400, 0), (SCORES, 2400, 0), (COUNTS, 0, 2400)])
def test_one_query_per_record_and_value(method, queries, passes):
    _, oracle, _ = reconstruct(method)
    assert (oracle.ledger.queries, oracle.ledger.passes) == (queries, passes)
    assert set(oracle.ledger.by_phase()) <= {"search"}


def test_what_was_used_is_known():
    used = {m.access: reconstruct(m)[2].used for m in (LABELS, SCORES, COUNTS)}
    assert used["LO"] - used["BB-S"] == {"confusion"}
    assert used["BB-S"] == {"question", "records", "responses", "marginal"}
    assert "public" in reconstruct(attack("mi_attribute", access="BB-S", belief="conditional"))[2].used
    assert reconstruct(attack("swapped_column", access="LO"))[2].used >= {"twin_confusion"}


@pytest.mark.parametrize("method", [LABELS, SCORES, IMPUTATION, attack("mi_attribute", belief="conditional")], ids=repr)
def test_same_seed_same_answer(method):
    first, second = reconstruct(method)[0], reconstruct(method)[0]
    assert torch.equal(first.data, second.data)
    assert torch.equal(first.scores, second.scores)
    assert first.notes == second.notes


def test_counts_need_leaves():
    with pytest.raises(AccessDenied, match="no leaves"):
        reconstruct(COUNTS, "mlp")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("mi_attribute", {"access": "BB"}, r"mi_attribute\.access: 'BB': did you mean 'BB-S'"),
        ("mi_attribute", {"belief": "marginals"}, "did you mean 'marginal'"),
        ("mi_attribute", {"access": "BB-S", "rounding": 2}, r"mi_attribute\.rounding: expected a width in \[0, 1\]"),
        ("mi_attribute", {"rounding": 0.5}, "got 0.5 with LO"),
        ("swapped_column", {"belief": "marginals"}, "did you mean 'marginal'"),
        ("imputation", {"kind": "forrest"}, "did you mean 'forest'"),
    ],
)
def test_bad_parameters(name, params, message):
    with pytest.raises(UserError, match=message):
        attack(name, **params)


# The equations, on a table small enough for loops: columns a (number), gene (3 values, sensitive), b (number).
QUESTION = Question("gene", ("x", "y", "z"), 1, 4, 5)
RECORDS = torch.tensor([[0.5, 1.0], [-1.0, 2.0], [0.0, 0.0]])
RESPONSES = torch.tensor([0, 1, 1])
MARGINAL = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def whole(record, value):
    return torch.cat([record[:1], torch.eye(3)[value], record[1:]])


def small(calls, level, ledger=None, **granted):
    granted |= {"question": QUESTION, "records": RECORDS, "responses": RESPONSES, "marginal": MARGINAL}
    knowledge = Knowledge(classes=2, **granted)
    return Oracle(level, calls, ledger or Ledger()), knowledge


def two_scores(x):
    """A made-up classifier of two classes."""
    p = torch.sigmoid(x[:, 0] + x @ torch.tensor([0.0, -2.0, 0.5, 1.5, -0.3]))
    return torch.stack([p, 1 - p], 1)


def test_labels_against_loops():
    counts = torch.tensor([[7.0, 2.0], [1.0, 5.0]])
    oracle, knowledge = small({"labels": lambda x: two_scores(x).argmax(1)}, "LO", confusion=counts)
    answer = attack("mi_attribute", access="LO").run(oracle, knowledge, torch.Generator().manual_seed(0))
    for i in range(3):
        weight = []
        for v in range(3):
            predicted = int(two_scores(whole(RECORDS[i], v)[None]).argmax())
            column = counts[:, predicted] + 1
            weight.append(float(column[RESPONSES[i]] / column.sum() * MARGINAL[v]))
        assert np.allclose(answer.scores[i], np.array(weight) / sum(weight), atol=1e-6)
        assert int(answer.data[i]) == int(np.argmax(weight))


def test_scores_against_loops():
    oracle, knowledge = small({"scores": two_scores}, "BB-S")
    answer = attack("mi_attribute", access="BB-S").run(oracle, knowledge, torch.Generator().manual_seed(0))
    for i in range(3):
        weight = [float(two_scores(whole(RECORDS[i], v)[None])[0, RESPONSES[i]] * MARGINAL[v]) for v in range(3)]
        assert np.allclose(answer.scores[i], np.array(weight) / sum(weight), atol=1e-6)


def test_counts_against_loops():
    """A tree by hand: gene x or not; then, of the others, b above 0.5 or not. Ten training rows."""
    tree = trees.Trees(
        feature=np.array([1, 4, -1, -1, -1]), threshold=np.array([0.5, 0.5, 0.0, 0.0, 0.0]),
        left=np.array([1, 2, -1, -1, -1]), right=np.array([4, 3, -1, -1, -1]), value=np.zeros((5, 2)),
        counts=np.array([[5.0, 5.0], [2.0, 4.0], [2.0, 1.0], [0.0, 3.0], [3.0, 1.0]]), roots=np.array([0]),
    )  # fmt: skip
    ledger = Ledger()
    oracle, knowledge = small({"module": lambda: WhiteBox(trees.TreeModel(tree), ledger)}, "WB", ledger)
    answer = attack("mi_attribute", access="WB").run(oracle, knowledge, torch.Generator().manual_seed(0))
    admitted = np.array([4, 6, 6]) / 10  # rows on the paths of gene x; of the others
    rows = np.array([[3, 0, 0], [1, 3, 3], [1, 1, 1]]) / 10  # rows with the record's response in its leaf
    weight = rows / admitted * MARGINAL.numpy()
    assert np.allclose(answer.scores, weight / weight.sum(1, keepdims=True), atol=1e-6)
    assert answer.data.tolist() == [0, 1, int(weight[2].argmax())]
    assert ledger.passes == 9


def test_where_no_value_fits_the_belief_is_left():
    oracle, knowledge = small({"scores": lambda x: torch.zeros(len(x), 2)}, "BB-S")
    answer = attack("mi_attribute", access="BB-S").run(oracle, knowledge, torch.Generator().manual_seed(0))
    assert np.allclose(answer.scores, MARGINAL.expand(3, 3))
    assert (answer.data == 0).all()


def test_ties_are_drawn_by_lot():
    rng = torch.Generator().manual_seed(0)
    value, posterior = _posterior.choose(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]]).double().repeat(500, 1), rng)
    assert posterior[0].tolist() == pytest.approx([1 / 3] * 3)
    assert set(value[0::2].tolist()) == {0, 1, 2}
    assert set(value[1::2].tolist()) == {1, 2}
    assert 0.4 < (value[1::2] == 1).float().mean() < 0.6
