"""Canaries: attacks that ask for more than their level grants fail loudly, and every query is counted."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from inversionbench.core.errors import AccessDenied, BudgetExceeded
from inversionbench.core.levels import LEVELS
from inversionbench.oracle.base import InputSpec, Ledger, Oracle
from inversionbench.oracle.classifier import classifier_oracle

CALLS = sorted(frozenset().union(*(at.calls for at in LEVELS.values())))
MODEL = ("parameters", "named_parameters", "state_dict", "modules", "children", "forward", "train", "buffers",
         "register_forward_hook", "model", "_modules", "__dict__", "weight", "training_data", "defense")
SPEC = InputSpec((3,), low=-1.0, high=1.0)


def calls_of(level, ledger=None):
    """Closures that say which call they are; the ledger is charged as a real oracle would."""

    def call(name):
        def answer(x=None, phase="search"):
            if ledger is not None:
                SPEC.check(x)
                ledger.charge(name, len(x), phase)
            return name

        return answer

    return {name: call(name) for name in LEVELS[level].calls}


def fake(level, budget=None):
    ledger = Ledger(budget)
    return Oracle(level, calls_of(level, ledger), ledger, SPEC, 4)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)).eval()


def real(level, **options):
    return classifier_oracle(network(), level, SPEC, 4, **options)


X = torch.linspace(-1, 1, 12).view(4, 3)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", CALLS)
def test_a_level_grants_its_calls_and_no_other(level, name):
    oracle = fake(level)
    if name in LEVELS[level].calls:
        assert getattr(oracle, name)(X) == name
    else:
        with pytest.raises(AccessDenied, match=f"'{name}' is not granted"):
            getattr(oracle, name)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", MODEL)
def test_no_attribute_leads_to_the_model(level, name):
    with pytest.raises(AccessDenied, match=name):
        getattr(fake(level), name)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "use", [lambda o: o(X), copy.copy, copy.deepcopy, pickle.dumps, vars, lambda o: o.__getstate__()],
    ids=["call", "copy", "deepcopy", "pickle", "vars", "getstate"],
)  # fmt: skip
def test_neither_called_nor_copied(level, use):
    with pytest.raises(AccessDenied):
        use(fake(level))


@pytest.mark.parametrize("name", ["ledger", "level", "labels", "input_spec", "anything"])
def test_nothing_can_be_changed(name):
    oracle = fake("LO")
    with pytest.raises(AccessDenied, match="cannot be changed"):
        setattr(oracle, name, Ledger())
    with pytest.raises(AccessDenied, match="cannot be changed"):
        delattr(oracle, name)
    assert oracle.level == "LO"


@pytest.mark.parametrize("level", LEVELS)
def test_an_oracle_must_be_built_for_exactly_its_level(level):
    calls = calls_of(level)
    with pytest.raises(ValueError, match="grants"):
        Oracle(level, {**calls, "extra": len}, Ledger())
    calls.popitem()
    with pytest.raises(ValueError, match="grants"):
        Oracle(level, calls, Ledger())


@pytest.mark.parametrize(("level", "name"), [("BB-L", "logits"), ("BB-S", "scores"), ("LO", "labels")])
def test_black_box_answers_have_no_way_back(level, name):
    oracle = real(level)
    ask = getattr(oracle, name)
    with pytest.raises(AccessDenied, match="gradient"):
        ask(X.clone().requires_grad_())
    assert oracle.ledger.queries == 0
    answer = ask(X)
    assert not answer.requires_grad
    assert not answer.is_inference()  # a plain tensor that an attack may go on computing with
    before = ask(X).clone()
    answer += 1
    assert torch.equal(ask(X), before)
    for other in {"logits", "scores", "labels", "module", "architecture"} - {name}:
        with pytest.raises(AccessDenied):
            getattr(oracle, other)


def test_white_box_is_a_frozen_copy():
    module = real("WB").module()
    assert not any(p.requires_grad for p in module.parameters())
    assert not any(m.training for m in module.model.modules())
    x = X.clone().requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    oracle = real("WB")
    before = oracle.module()(X)
    with torch.no_grad():
        for parameter in oracle.module().parameters():
            parameter.zero_()
    assert torch.equal(oracle.module()(X), before)


def test_without_statistics_of_batch_normalisation():
    plain, bare = real("WB").module(), real("WB-noBN").module()
    assert torch.allclose(plain(X), bare(X), atol=1e-6)
    assert any("running_mean" in name for name, _ in plain.named_buffers())
    assert not any("running" in name for name, _ in bare.named_buffers())
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in bare.modules())


@pytest.mark.parametrize(("level", "name"), [("BB-L", "logits"), ("BB-S", "scores"), ("LO", "labels")])
@pytest.mark.parametrize(
    "bad",
    [X[:, :2], X[0], X[:0], X.double(), X * 2, X * float("nan"), torch.full((1, 3), float("inf"))],
    ids=["columns", "one", "none", "dtype", "range", "nan", "inf"],
)
def test_inputs_are_checked_and_cost_nothing_when_refused(level, name, bad):
    oracle = real(level)
    with pytest.raises((ValueError, IndexError)):
        getattr(oracle, name)(bad)
    assert oracle.ledger.queries == 0


class Counting(nn.Module):
    """A model that notes what it is asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4))
        self.seen: list[int] = []

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        self.seen.append(len(x))
        return x @ self.weight


@pytest.mark.parametrize(("level", "name"), [("BB-L", "logits"), ("BB-S", "scores"), ("LO", "labels")])
def test_the_budget_is_refused_before_anything_is_computed(level, name):
    model = Counting()
    oracle = classifier_oracle(model, level, SPEC, 4, budget=9)
    ask = getattr(oracle, name)
    ask(X)
    ask(X)
    with pytest.raises(BudgetExceeded, match="12 of 9"):
        ask(X)
    assert model.seen == [4, 4]
    assert oracle.ledger.queries == 8
    ask(X[:1])
    assert oracle.ledger.queries == 9


def test_the_ledger_counts_inputs_by_phase():
    oracle = real("BB-S")
    for _ in range(3):
        oracle.scores(torch.zeros(8, 3), phase="search")
    oracle.scores(X, phase="select")
    oracle.scores(X)  # repeats cost again; the default phase is search
    assert oracle.ledger.queries == 32
    assert oracle.ledger.by_phase() == {"search": 28, "select": 4}
    assert [(r.phase, r.inputs, r.cumulative) for r in oracle.ledger.rows] == [
        ("search", 24, 24), ("select", 4, 28), ("search", 4, 32),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="phase"):
        oracle.scores(X, phase="evaluation")
    assert oracle.ledger.queries == 32


def test_passes_are_no_queries():
    oracle = real("WB")
    module = oracle.module()
    module(X)
    module(X)
    assert (oracle.ledger.queries, oracle.ledger.passes) == (0, 8)
    assert oracle.ledger.by_phase() == {}
    Ledger(budget=1).charge("module", 100, "search")  # a budget is for queries


def test_nothing_is_given_back():
    ledger = Ledger(budget=10)
    ledger.charge("labels", 8, "search")
    with pytest.raises(ValueError, match="given back"):
        ledger.charge("labels", -8, "search")
    assert ledger.queries == 8


def test_checkpoints():
    oracle = fake("LO")
    with oracle.checkpoint(100) as hold:
        hold("first")
        hold("better")
    with oracle.checkpoint(200) as hold:
        hold("best")
    assert oracle.checkpoints == [(100, "better"), (200, "best")]
    with pytest.raises(ValueError, match="nothing"), oracle.checkpoint(300):
        pass
    assert len(oracle.checkpoints) == 2


def test_an_error_inside_a_checkpoint_is_not_hidden():
    oracle = fake("LO", budget=1)
    with pytest.raises(BudgetExceeded), oracle.checkpoint(100):
        oracle.labels(X)
    assert oracle.checkpoints == []
