"""The update path: stages that compose, their order, every observer's view, chains of defenses."""

import numpy as np
import pytest
import torch
from federated_cells import TRACK, data, generator, price, scenario, target

from inversionbench.core.defense import NONE, Client
from inversionbench.core.errors import UserError
from inversionbench.core.exchange import Round
from inversionbench.core.records import unpack
from inversionbench.core.update_path import Payload, Residual, Stage, UpdatePath, check_chain, check_order
from inversionbench.defenses.cryptographic_encryption.secure_aggregation import SecureAggregation
from inversionbench.defenses.differential_privacy.dp_sgd import DpSgd
from inversionbench.defenses.differential_privacy.local_dp import LocalDp
from inversionbench.defenses.gradient_pruning.dgc import Dgc
from inversionbench.defenses.protocol.chain import Chain
from inversionbench.plan import params


def update(seed=0, n=40):
    return {"w": torch.randn(n, 10, generator=generator(seed)), "b": torch.randn(10, generator=generator(seed + 1))}


def client(round=0, state=None):
    return Client(round, 10, 0, 4, 8, update(9), generator(round), {} if state is None else state)


class Halves(Stage):
    """Rounds to halves and counts one byte for each value."""

    gives = "quantised"

    def encode(self, payload, ctx, state):
        tensors = {n: (2 * t).round() for n, t in payload.tensors.items()}
        return Payload("quantised", tensors, sum(t.numel() for t in tensors.values()))

    def decode(self, payload, like, ctx):
        return Payload("dense", {n: t / 2 for n, t in payload.tensors.items()}, payload.size)


def test_encode_and_decode_are_a_pair():
    path = UpdatePath([Halves()])
    payload = path.encode(update(), client())
    assert payload.kind == "quantised"
    read = path.decode(payload, update(), client())
    assert read.size == payload.size == 410
    assert float((read["w"] - update()["w"]).abs().max()) <= 0.25
    assert list(read) == list(update())


def test_errors_are_made_good_in_later_rounds():
    state, sums = {}, torch.zeros(40, 10)
    path, plain = UpdatePath([Residual(), Halves()]), torch.zeros(40, 10)
    for t in range(20):
        g = {n: 0.1 * v for n, v in update(t).items()}  # below half a step: alone they would all become 0
        sums, plain = sums + path.send(g, client(t, state))["w"], plain + g["w"]
    assert float((sums - plain).abs().max()) <= 0.25 + 1e-5  # only the last error is owed
    assert "error" in state["path"][0]
    assert list(state["path"]) == [0, 1]  # each stage has a memory of its own


ORDERS = [
    (["mask"], "floats neither cancel"),
    (["noise"], "not a clip"),
    (["noise", "clip"], "not a clip"),
    (["clip", "transform", "noise"], "not a clip"),
    (["clip", "compensate", "transform"], "memory .* behind the clip"),
    (["ring", "mask", "transform"], "nothing may change"),
    (["ring", "mask", "clip", "noise"], "nothing may change"),
    (["ring", "mask", "ring", "mask"], "nothing may change"),
    (["shake"], "no place 'shake'"),
]


class Place:
    takes, gives = ("dense",), "dense"

    def __init__(self, place):
        self.places = (place,)


@pytest.mark.parametrize(("places", "message"), ORDERS)
def test_wrong_orders_are_refused(places, message):
    with pytest.raises(UserError, match=message):
        check_order([(p, Place(p)) for p in places])


@pytest.mark.parametrize("places", [
    ["compensate", "clip", "noise", "transform", "ring", "mask"], ["transform", "clip", "noise"], [],
    ["clip", "noise", "compensate", "transform"], ["ring", "mask"],
])  # fmt: skip
def test_right_orders_pass(places):
    check_order([(p, Place(p)) for p in places])


DP = {"method": "local_dp", "strength": 1.0}
SUM = {"method": "secure_aggregation", "strength": 2}
LOTS = {"method": "dp_sgd", "strength": 1.0}
QUANTISED = {"method": "mixed_quantization", "strength": 1}


@pytest.mark.parametrize(
    ("stages", "varies", "message"),
    [
        ([SUM, {"method": "local_dp"}], "local_dp", "after the masks"),
        ([QUANTISED, {"method": "secure_aggregation"}], "secure_aggregation", "takes dense or sparse"),
        ([QUANTISED, {"method": "local_dp"}], "local_dp", "takes dense or sparse"),
        ([DP, {"method": "dgcc"}], "dgcc", "did you mean 'dgc'"),
        ([DP, {"method": "dgc", "momentun": 1.0}], "dgc", "did you mean 'momentum'"),
        ([DP, SUM], "local_dp", "that of the chain"),
        ([{"method": "local_dp"}], "dgc", "give it a strength"),
        ([{"method": "chain"}], "chain", "no chains"),
        ([DP, {"method": "soteria"}], "soteria", "looks at the images again behind the noise of 'local_dp'"),
        ([{"method": "guardian"}, LOTS], "guardian", "looks at the images again behind the noise of 'dp_sgd'"),
        ([{"method": "vrm"}, LOTS], "vrm", "'vrm' changes train_transform: its epsilon"),
        ([LOTS, {"method": "precode"}], "precode", "'precode' changes loss: its epsilon"),
        ([3], "", "with 'method'"),
    ],
)
def test_wrong_chains_are_refused(stages, varies, message):
    with pytest.raises(UserError, match=message):
        check_chain(stages, varies, "defenses.pair")


@pytest.mark.parametrize(
    "stages", [[{"method": "soteria"}, DP], [{"method": "dgc"}, LOTS], [LOTS, {"method": "dgc"}, SUM]]
)
def test_what_keeps_a_guarantee_passes(stages):
    (free,) = [s["method"] for s in stages if "strength" not in s]
    check_chain(stages, free, "defenses.pair")


def chain(strength, *stages, varies):
    return Chain(strength=strength, stages=stages, varies=varies)


def test_a_chain_of_one_is_that_defense():
    one = chain(0.9, {"method": "dgc", "momentum": 0.5}, varies="dgc")
    for state, twin in (({}, {}),):
        for t in range(3):
            a = one.client_update(update(t), client(t, state))
            b = Dgc(strength=0.9, momentum=0.5).client_update(update(t), client(t, twin))
            assert all(torch.equal(a[n], b[n]) for n in b)
    assert one.bytes_sent(a) == Dgc(strength=0.9).bytes_sent(b)
    assert one.client_momentum


def test_a_chain_passes_updates_from_stage_to_stage():
    pair = chain(0.5, {"method": "dgc", "strength": 0.9}, {"method": "local_dp", "clip": 2.0}, varies="local_dp")
    sent = pair.client_update(update(), client())
    pruned = Dgc(strength=0.9).client_update(update(), client())
    noised = LocalDp(strength=0.5, clip=2.0).client_update(pruned, client())
    assert all(torch.equal(sent[n], noised[n]) for n in sent)
    assert pair.public_knowledge()["chain"] == ["dgc", "local_dp"]


def test_a_chain_under_masks():
    both = chain(0.5, {"method": "local_dp"}, {"method": "secure_aggregation", "strength": 4}, varies="local_dp")
    made = target(scenario(subjects=4), both)
    alone = target(scenario(subjects=4), LocalDp(strength=0.5))
    mean = {n: t.mean(0) for n, t in alone.released["updates"]["client"].items()}
    seen = made.released["updates"]["client"]
    assert all(float((seen[n][i] - m).abs().max()) < 1e-5 for n, m in mean.items() for i in range(4))
    assert made.utility["noise_std"] == alone.utility["noise_std"]
    assert made.utility["clients_per_sum"] == 4


def test_a_chain_at_strength_0_is_nothing():
    off = chain(0.0, SUM, varies="x")
    assert off.parts == ()
    assert off.crowd == 1
    assert all(torch.equal(t, update()[n]) for n, t in off.client_update(update(), client()).items())


def test_observers_of_plain_federated_learning():
    payloads, one = [update(i) for i in range(3)], [1.0] * 3
    seen = {o: NONE.exchange(payloads, one, Round(0, generator(), [1640] * 3, o, True))
            for o in ("server", "eavesdropper", "client", "collusion")}  # fmt: skip
    for name in ("server", "eavesdropper", "collusion"):
        assert all(torch.equal(seen[name].view[i]["w"], payloads[i]["w"]) for i in range(3))
    others = (payloads[0]["w"] + payloads[2]["w"]) / 2  # client 1 watches client 0
    assert torch.allclose(seen["client"].view[0]["w"], others)
    assert seen["server"].bytes_up == [1640] * 3
    with pytest.raises(UserError, match="at least 2"):
        NONE.exchange(payloads[:1], one[:1], Round(0, generator(), [1640], "client", True))


def test_the_observer_of_the_protocol_is_whose_view_is_released():
    server, other = target(scenario(subjects=2)), target(scenario(subjects=2, observer="client"))
    a, b = (m.released["updates"]["client"]["body.0.weight"] for m in (server, other))
    assert torch.allclose(b[0], a[0], atol=1e-7)  # of two clients, the other one's update is all there is
    assert set(server.seconds) == {"client", "exchange"}
    with pytest.raises(UserError, match="did you mean 'server'"):
        TRACK.check(scenario(observer="sever"))


def test_masked_sums_are_released_to_the_server():
    made = target(scenario(subjects=4), SecureAggregation(strength=4))
    plain = target(scenario(subjects=4))
    seen, own = (m.released["updates"]["client"]["body.0.weight"] for m in (made, plain))
    assert torch.allclose(seen[1], own.mean(0), atol=1e-5)
    assert made.utility["bytes_down"] > made.utility["bytes_dense"]
    assert made.released["defense"]["groups"] == [[0, 1, 2, 3]]


def test_chains_are_read_from_parameters(tmp_path):
    entry = {"method": "chain", "params": {"stages": [{"method": "local_dp"}, SUM], "varies": "local_dp"}}
    raw = {
        "scale": "tiny", "datasets": {"photos": {}}, "attacks": {"inverting_gradients": {}},
        "scenarios": {"s": {"track": "federated", "dataset": "photos", "model": {"name": "lenet"}}},
        "defenses": {"both": {**entry, "strengths": [0.5]}},
    }  # fmt: skip
    built = params.check(raw).defenses["both"].build(None, strength=0.5)
    assert [p.id for p in built.parts] == ["local_dp", "secure_aggregation"]


def test_a_price_is_of_the_same_clients_and_batches():
    """A masked sum loses only the last bits: the federation of each seed is the undefended one again (no held-out
    crop of 40 comes out differently; two seeds differ in 6)."""
    training = {"utility_rounds": 30, "utility_seeds": 2, "clients": 4, "batch": 8, "rate": 0.05}
    where = scenario(training=training)
    own, before = price(where)
    masked, after = price(where, SecureAggregation(strength=2))
    pruned, _ = price(where, Dgc(strength=0.999))
    assert [t["seed"] for t in before] == [t["seed"] for t in after] == [0, 1]
    assert max((unpack(a) != unpack(b)).mean() for a, b in zip(before, after)) < 0.1
    assert before[0]["curve"] != before[1]["curve"]
    assert [t for t, _ in before[0]["curve"]] == list(range(1, 31))
    assert own["accuracy"] == pytest.approx(np.mean([unpack(t) for t in before]))
    assert own["chance"] == masked["chance"] == 1 / data().classes
    assert masked["bytes_round"] > own["bytes_round"] > pruned["bytes_round"]
    assert masked["bytes_down_round"] > own["bytes_down_round"] == own["bytes_round"]


@pytest.mark.parametrize("steps", [1, 2])
def test_guarantees_are_of_the_rounds_that_are_trained(steps):
    """Of a federation of 30 rounds in which the attacked one is the first; of 5 rounds and the attacked one."""
    dp = {"method": "local_dp", "strength": 3.0}
    chain = Chain(strength=4, stages=(dp, {"method": "secure_aggregation"}), varies="secure_aggregation")
    local = {"sends": "delta", "batch_size": 2, "local_batch": 1} if steps > 1 else {}
    for training, rounds in (({"utility_rounds": 30}, 30), ({"rounds": 5, "clients": 2, "batch": 4}, 6)):
        where = scenario(subjects=2, training=training, **local)
        for defense in (LocalDp(strength=3.0), chain):
            made = target(where, defense)
            told = LocalDp(strength=3.0).spent(sum(p.numel() for p in made.released["state"].values()), rounds)
            assert f"in {rounds} rounds" in made.released["defense"]["guarantee"]
            assert made.utility["epsilon_total"] == pytest.approx(told["epsilon_total"])
        said = target(where, DpSgd(strength=1.0)).released["defense"]["guarantee"]
        assert f"in {rounds * steps} steps" in said
    with pytest.raises(TypeError, match="rounds"):  # nobody can say another number
        LocalDp(strength=3.0, rounds=150)
