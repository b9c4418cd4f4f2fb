"""Networks of tables, the question of attribute inference, imputers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.models import columns, tabular
from inversionbench.models.columns import Question
from inversionbench.models.imputers import impute, train_imputer

META = {
    "name": "toy",
    "sensitive": "gene",
    "columns": [
        {"name": "age", "kind": "numeric", "values": [], "slice": [0, 1], "sensitive": False},
        {"name": "gene", "kind": "categorical", "values": ["x", "y", "z"], "slice": [1, 4], "sensitive": True},
        {"name": "drug", "kind": "categorical", "values": ["no", "yes"], "slice": [4, 6], "sensitive": False},
    ],
}


def toy(n=300, seed=0):
    """Records in which drug follows gene z, and the response follows gene and age."""
    rng = np.random.default_rng(seed)
    gene, age = rng.integers(0, 3, n), rng.standard_normal(n)
    drug = np.where(rng.random(n) < 0.9, gene == 2, gene != 2).astype(int)
    x = np.c_[age, np.eye(3)[gene], np.eye(2)[drug]].astype(np.float32)
    return x, ((gene == 1) ^ (age > 0)).astype(np.int64)


def test_the_question():
    question = columns.ask(META)
    assert question == Question("gene", ("x", "y", "z"), 1, 4, 6)
    assert columns.ask(META, "drug").values == ("no", "yes")
    assert Question(**question.state()) == question
    assert columns.one_hot_slices(META) == [(1, 4), (4, 6)]


def test_taking_out_and_putting_in():
    x, _ = toy(20)
    question = columns.ask(META)
    known = question.known(x)
    assert known.shape == (20, 3)
    assert np.array_equal(known, x[:, [0, 4, 5]])
    complete = question.complete(known)
    assert complete.shape == (60, 6)
    assert complete.dtype == np.float32
    value = question.truth(x)
    assert np.array_equal(complete[np.arange(20) * 3 + value], x)  # the true value restores the record
    assert np.array_equal(question.truth(complete), np.tile([0, 1, 2], 20))
    assert (complete[:, 1:4].sum(1) == 1).all()  # its columns move together


@pytest.mark.parametrize(
    ("name", "message"), [("gnee", "did you mean 'gene'"), ("age", "no categorical column 'age'")]
)
def test_a_column_that_cannot_be_asked_for(name, message):
    with pytest.raises(UserError, match=message):
        columns.ask(META, name)


def test_images_are_no_table():
    with pytest.raises(UserError, match="'photos' is no table"):
        columns.ask({"name": "photos"})


def test_a_network_through_a_file(tmp_path):
    model = tabular.MLP(6, [8, 5], 3).eval()
    torch.save(tabular.state_of(model, {"hidden": [8, 5]}, 6, 3), tmp_path / "mlp.pt")
    again = tabular.load(torch.load(tmp_path / "mlp.pt", weights_only=True))
    x = torch.from_numpy(toy(10)[0])
    assert torch.equal(again(x), model(x))
    seen = again.trace(x)
    assert torch.equal(seen.logits, model(x))
    assert [tuple(h.shape) for h in seen.hidden.values()] == [(10, 8), (10, 5)]
    assert torch.equal(seen.features, seen.hidden["layer1"])


@pytest.mark.parametrize("kind", ["logistic", "forest", "best"])
def test_imputers_find_the_correlation(kind):
    x, y = toy()
    new, new_y = toy(300, 1)
    question = columns.ask(META)
    value = question.truth(new)
    found = {}
    for response in (False, True):
        model = train_imputer(question, x, y if response else None, 2, 0, kind)
        share = impute(model, question.known(new), new_y if response else None, 2)
        assert share.shape == (300, 3)
        assert np.allclose(share.sum(1), 1)
        found[response] = (share.argmax(1) == value).mean()
    assert found[False] > 0.5  # a guess: 1/3; drug tells z from the others
    if kind != "logistic":  # the response works through an interaction with age
        assert found[True] > found[False] + 0.1


def test_the_better_imputer_is_taken():
    x, y = toy()
    question = columns.ask(META)
    assert train_imputer(question, x, y, 2, 0, "best")["kind"] == "forest"  # needs the interaction
    plain = np.random.default_rng(0).integers(0, 2, len(y))
    model = train_imputer(question, x, plain, 2, 0, "best", balanced=True)
    assert model["kind"] == "logistic"  # noise as response: the forest learns it by heart


@pytest.mark.parametrize("values", [2, 3])
def test_logistic_imputers_are_those_of_scikit_learn(values):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    code = rng.integers(0, values, 200)
    known = (rng.standard_normal((200, 2)) + code[:, None]).astype(np.float32)
    x = np.c_[known[:, :1], np.eye(values)[code], known[:, 1:]].astype(np.float32)
    question = Question("s", tuple("abc"[:values]), 1, 1 + values, 2 + values)
    model = train_imputer(question, x, None, 2, 0, "logistic")
    reference = LogisticRegression(max_iter=1000).fit(known.astype(np.float64), code)
    assert np.allclose(impute(model, known, None, 2), reference.predict_proba(known.astype(np.float64)))
    missing = Question("s", (*"abc"[:values], "never"), 1, 2 + values, 3 + values)
    wider = np.insert(x, 1 + values, 0, axis=1)
    assert (impute(train_imputer(missing, wider, None, 2, 0, "logistic"), known, None, 2)[:, -1] == 0).all()
