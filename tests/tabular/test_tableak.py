"""TabLeak: its card's checks, its parts against plain computations, and what each row must beat."""

from __future__ import annotations

import math

import pytest
import torch
from rows_cells import TRACK, Noise, attack, data, evaluated, mean, reconstruct, scenario, schema, target
from torch.nn import functional as F

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.core.protocol import Protocol
from inversionbench.federation.rows import Rows
from inversionbench.gradients.fully_connected import Matching, layers_of, observed_of, simulate
from inversionbench.tracks.tabular.attacks import _pool
from inversionbench.tracks.tabular.attacks._relax import Relaxation

MAIN = scenario((1, 16))
POOLED = attack()
PLAIN = attack(restarts=1, relax=False)
WRONG = attack("wrong_rows", restarts=1, iterations=150)
AT_16 = "tabular_recovery[B=16]"


# --- the card's checks ---------------------------------------------------------------------------------


def test_one_row_comes_back_whole():
    assert mean(evaluated(POOLED, MAIN), "tabular_recovery[B=01]") > 0.99
    assert mean(evaluated(PLAIN, scenario(1, 4))) > 0.9


def test_pooling_adds_something():
    """Pooled rows against one restart's, and near those of the restart that is best, which nobody knows beforehand; ten
    batches of 16. Pooled .767, one restart .715, best .757; with other kernels .766, .715, .754 (standard error of a
    difference about .01). Asked for: .02 above one, no more than .03 below the best."""
    where = scenario((16,), 10)
    found = evaluated(POOLED, where)
    pooled, best, one = mean(found), mean(found, control="best_restart"), mean(found, control="one_restart")
    assert pooled > best - 0.03
    assert pooled > one + 0.02


def test_relaxation_adds_something():
    """One restart with it, without it, and the marginals: in this order, over ten batches of 16. It needs time:
    below 300 iterations it adds nothing."""
    where = scenario((16,), 10)
    relaxed, plain = (evaluated(attack(restarts=1, relax=on, iterations=450), where) for on in (True, False))
    assert mean(relaxed) > mean(plain) + 0.02
    assert mean(plain) > mean(plain, control="marginals") + 0.1


def test_pooling_rows_that_were_not_matched_hurts():
    found = evaluated(POOLED, MAIN)
    assert mean(found, AT_16) > mean(found, AT_16, "shuffled_rows") + 0.1


def test_least_doubt_is_most_often_right():
    doubt = evaluated(POOLED, MAIN).facts["doubt"]
    for kind in ("categorical[B=16]", "numeric[B=16]"):
        assert doubt[kind]["least_doubt"] > doubt[kind]["all"] + 0.05


def test_another_gradient_gives_nothing():
    found = evaluated(WRONG, MAIN)
    chance = max(mean(found, AT_16, name) for name in ("marginals", "other_batch"))
    assert mean(found, AT_16) < chance + 0.03
    assert mean(found, "tabular_recovery[B=01]") < 0.6


# attack, the control that it must beat, by how much
EIGHT = scenario((8,), 3)
FEW = {"restarts": 3, "iterations": 250}
ROWS = [
    (attack(**FEW), "other_batch", 0.15),
    (attack(pooling="best", **FEW), "other_batch", 0.15),
    (attack(pooling="mean", **FEW), "other_batch", 0.15),
    (attack(match="mask", **FEW), "other_batch", 0.15),
    (PLAIN, "other_batch", 0.1),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r[0].pooling}-{r[0].relax}-{r[0].match}")
def test_beats_the_rows_of_others(row):
    method, control, margin = row
    found = evaluated(method, EIGHT)
    assert mean(found) > mean(found, control=control) + margin


# --- the client is simulated rightly -------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [MAIN, scenario(4, 2, sends="delta", epochs=2, local_batch=2, local_rate=0.1),
     scenario(4, 2, hidden=(30,)), scenario(5, 2, sends="delta", local_batch=2, local_rate=0.05)],
    ids=["gradient", "epochs", "one hidden layer", "uneven steps"],
)  # fmt: skip
def test_the_simulation_agrees_at_the_truth(where):
    checks = target(where).truth["checks"]
    assert max(map(abs, checks["match_at_truth_undefended"])) < 2e-6
    assert checks["match_at_truth"] == checks["match_at_truth_undefended"]


def test_local_steps_are_inverted():
    """FedAvg, two epochs of two steps: far above the rows of others, and B = 4 rows alone are easy."""
    where = scenario(4, 3, sends="delta", epochs=2, local_batch=2, local_rate=0.1)
    found = evaluated(attack(restarts=2, iterations=200), where)
    assert mean(found) > mean(found, control="other_batch") + 0.2


def net():
    return Rows(scenario(4, hidden=(20, 15))).start(data(), NONE, 3)


def batch(clients=2, trials=3, rows=5):
    g = torch.Generator().manual_seed(1)
    z = torch.randn(clients, trials, rows, schema().width, generator=g)
    y = F.one_hot(torch.randint(0, 2, (clients, 1, rows), generator=g), 2).float()
    return z, y


def gradients(model, z, y):
    """Autograd through the network itself, one trial at a time."""
    out = []
    for trial in z.flatten(0, 1):
        x = trial * model.std + model.mean
        loss = F.cross_entropy(model(x), y[0, 0].argmax(-1))
        parts = dict(zip((n for n, _ in model.named_parameters()), torch.autograd.grad(loss, list(model.parameters()))))
        out.append(parts)
    return {n: torch.stack([p[n] for p in out]) for n in out[0]}


def test_written_out_gradients_are_autograd():
    model, (z, y) = net(), batch(1)
    expected = observed_of(model, gradients(model, z, y))
    found = simulate(layers_of(model), z, y, Protocol(batch_size=5))
    for a, b in zip(found, expected):
        assert torch.allclose(a[0], b, atol=1e-6)


def test_short_and_long_way_agree_and_so_do_their_slopes():
    model, (z, y) = net(), batch()
    layers = [(w.double(), b.double()) for w, b in layers_of(model)]
    z, y = z.double().requires_grad_(), y.double()
    g = torch.Generator().manual_seed(2)
    seen = [torch.randn(2, w.shape[1] + 1, w.shape[0], generator=g, dtype=torch.float64) for w, _ in layers]
    short = Matching(layers, seen, Protocol(batch_size=5))
    distance = short(z, y)
    long = short.distance(simulate(layers, z, y, short.protocol))
    assert torch.allclose(distance, long, atol=1e-12)
    (slope,) = torch.autograd.grad(long.sum(), z)
    assert torch.allclose(short.slope(z.detach(), y), slope, atol=1e-12)


def test_mask_compares_what_was_sent():
    """Entries that are zero in the observed gradient count nowhere."""
    model, (z, y) = net(), batch(1, 1)
    own = simulate(layers_of(model), z, y, Protocol(batch_size=5))
    seen = [g[:, 0] * (g[:, 0].abs() > g.abs().median()) for g in own]
    sent = [s != 0 for s in seen]
    masked, plain = (Matching(layers_of(model), seen, Protocol(batch_size=5), keep=k) for k in (sent, None))
    assert float(masked(z, y).abs().max()) < 1e-5
    assert float(plain(z, y).min()) > 1e-3
    assert not torch.allclose(masked.slope(z + 1, y), plain.slope(z + 1, y), rtol=0.1)


# --- relaxation and pooling ----------------------------------------------------------------------------


def test_relaxed_rows_are_mixtures_of_rows():
    s, relax = schema(), Relaxation(schema())
    u = 20 * torch.randn(7, 4, s.width, generator=torch.Generator().manual_seed(0))
    kept = u.clone()
    x = relax.shares(relax(u))
    assert torch.equal(u, kept)
    for i, (start, stop) in enumerate(s.blocks):
        if s.categorical[i]:
            assert torch.allclose(x[..., start:stop].sum(-1), torch.ones(7, 4), atol=1e-4)
            assert (x[..., start:stop] >= 0).all()
        else:
            number = s.centre[i] + s.unit[i] * x[..., start].double()
            assert (number >= s.low[i] - 1e-3).all()
            assert (number <= s.high[i] + 1e-3).all()
    assert torch.equal(Relaxation(s, on=False)(u), u)


def test_every_category_can_be_reached():
    """Standardised places are brought back first: without that a rare category's softmax share stays small."""
    s, relax = schema(), Relaxation(schema())
    start, stop = s.blocks[s.names.index("group")]
    for place in range(start, stop):
        u = torch.zeros(s.width)
        u[place] = 10 / s.std[place]
        assert s.decode(relax.shares(relax(u)))[s.names.index("group")] == place - start


def test_rows_survive_encoding():
    s, x = schema(), data().public.tensor(slice(0, 200))
    rows = s.decode(x)
    assert torch.allclose(s.encode(rows), x, atol=1e-3)
    whole = {name for name, integer in zip(s.names, s.integer) if integer}
    assert {"age", "hours", "children", "tenure", "sex"} <= whole
    assert "savings" not in whole
    assert ((s.low <= rows) & (rows <= s.high)).all()


def test_align_finds_the_permutation():
    rows = schema().decode(data().private.tensor(slice(0, 12)))
    orders = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    members = torch.stack([rows[order] for order in orders])
    found = _pool.align(members, rows, schema())
    assert all(torch.equal(member[place], rows) for member, place in zip(members, found))


def test_record_error_by_hand():
    s = schema()
    rows = s.decode(data().private.tensor(slice(0, 1)))
    other = rows.clone()
    age, sex = s.names.index("age"), s.names.index("sex")
    other[0, age] += 0.33 * s.unit[age]
    other[0, sex] = 1 - other[0, sex]
    assert float(_pool.record_errors(other[None], rows, s)) == pytest.approx(2 / len(s.names))
    other[0, age] = rows[0, age] + 0.3 * s.unit[age]
    assert float(_pool.record_errors(other[None], rows, s)) == pytest.approx(1 / len(s.names))


def test_median_of_members_ignores_a_stray_one():
    members = torch.tensor([[[0.0]], [[1.0]], [[1.0]], [[50.0]]])
    assert float(_pool.pool(members, "median")) == 1.0
    assert float(_pool.pool(members, "mean")) == 13.0


def test_doubt_by_hand():
    s = schema()
    x = data().private.tensor(slice(0, 3))
    start, stop = s.blocks[s.names.index("group")]
    members = x.repeat(4, 1, 1).clone()
    members[:, 0, start:stop] = 1 / (stop - start)
    age = s.blocks[s.names.index("age")][0]
    members[:, 1, age] = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    doubt = _pool.doubt(_pool.pool(members, "median"), members, s)
    assert float(doubt[0, s.names.index("group")]) == pytest.approx(1.0)
    assert float(doubt[1, s.names.index("group")]) == pytest.approx(0.0, abs=1e-9)
    assert float(doubt[1, s.names.index("age")]) == pytest.approx(0.5 + 0.5 * math.log(2 * math.pi))
    assert doubt[0, s.names.index("age")] < -5


# --- labels, determinism, access ------------------------------------------------------------------------


def test_labels_are_recovered_where_they_are_hidden():
    where = scenario((16,), 4, labels="hidden")
    found = evaluated(attack(restarts=1, iterations=100), where)
    assert mean(found, "label_recovery") > 0.85
    assert mean(found) > mean(found, control="marginals") + 0.05
    assert "labels" not in reconstruct(attack(restarts=1, iterations=0), where)[2]


def test_same_seed_same_answer():
    where = scenario((4,), 2)
    a, b = (reconstruct(attack(iterations=30, restarts=3), where)[0] for _ in range(2))
    assert torch.equal(a.data, b.data)
    assert torch.equal(a.scores, b.scores)
    assert a.cost == b.cost == {"gradient_evaluations": 2 * 3 * 31}


def test_clients_of_other_sizes_change_nothing_but_the_draw():
    """Padding beyond a batch is never read: NaN in the answer, -1 in the labels."""
    answer, oracle, knowledge = reconstruct(attack(iterations=5, restarts=2), MAIN)
    assert oracle.protocol()["sizes"] == [1] * 4 + [16] * 4
    assert torch.isnan(answer.data[:4, 1:]).all()
    assert torch.isfinite(answer.data[4:]).all()
    assert (knowledge.labels[:4, 1:] == -1).all()
    assert knowledge.used == {"schema", "labels"}
    assert oracle.ledger.queries == 8


def test_noise_stops_it():
    where = scenario((8,), 4)
    weak, strong = (evaluated(attack(restarts=4), where, defense=Noise(s)) for s in (0.3, 5.0))
    assert mean(weak) > mean(strong) + 0.1
    assert mean(strong) < max(mean(strong, control="other_batch"), mean(strong, control="mode")) + 0.08
    price = [target(where, defense=Noise(s)).utility["cos_sent_true"] for s in (0.3, 5.0)]
    assert 0.9 < price[0] < 0.99
    assert price[1] < 0.3


def test_strength_0_is_no_defense():
    where = scenario((4,), 2)
    a, b = target(where), target(where, defense=Noise(0.0))
    for name, update in a.released["updates"]["client"].items():
        assert torch.equal(update, b.released["updates"]["client"][name])


def test_only_the_question_that_a_scenario_asks():
    rows, attribute = registry.describe("attack", "tableak"), registry.describe("attack", "mi_attribute")
    asks_attribute = scenario()
    asks_attribute.protocol.clear()  # the default question
    assert TRACK.accepts(MAIN, rows)
    assert not TRACK.accepts(MAIN, attribute)
    assert TRACK.accepts(asks_attribute, attribute)
    assert not TRACK.accepts(asks_attribute, rows)
    with pytest.raises(AccessDenied, match="asks for attribute"):
        TRACK.oracle(MAIN, target(MAIN).released, registry.get("attack", "mi_attribute")(), "LO", NONE, 0)


@pytest.mark.parametrize("call", ["scores", "labels", "module", "logits", "observe"])
def test_a_server_gets_no_more(call):
    oracle = reconstruct(attack(iterations=0, restarts=1), MAIN)[1]
    with pytest.raises(AccessDenied):
        getattr(oracle, call)(torch.zeros(1, schema().width))
    with pytest.raises(AccessDenied, match="not 'truth'"):
        oracle.observe_update("truth")


def test_the_server_cannot_be_changed():
    oracle = reconstruct(attack(iterations=0, restarts=1), MAIN)[1]
    model, seen = oracle.global_model(), oracle.observe_update()
    kept = {n: t.clone() for n, t in oracle.global_model().state_dict().items()}
    next(model.parameters()).add_(1)
    next(iter(seen.values())).add_(1)
    assert all(torch.equal(t, kept[n]) for n, t in oracle.global_model().state_dict().items())
    assert not torch.equal(next(iter(seen.values())), next(iter(oracle.observe_update().values())))


@pytest.mark.parametrize(
    ("params", "message"),
    [({"pooling": "medain"}, "did you mean 'median'"), ({"match": "masked"}, "did you mean 'mask'"),
     ({"restarts": 0}, "restarts >= 1")],
)  # fmt: skip
def test_bad_parameters(params, message):
    with pytest.raises(UserError, match=message):
        attack(**params)
