"""Secure aggregation: exact sums, views that say nothing, dropouts, collusion, and what must fail."""

import numpy as np
import pytest
import torch
from federated_cells import CONVNET, data, generator, psnr, reconstruct, scenario, target
from scipy.stats import chi2

from inversionbench.core.defense import NONE, Defense
from inversionbench.core.exchange import Round
from inversionbench.defenses._fixed_point import centred, decode, encode
from inversionbench.defenses.cryptographic_encryption import _masking as masking
from inversionbench.defenses.cryptographic_encryption import _shamir as shamir
from inversionbench.defenses.cryptographic_encryption import secure_aggregation as module
from inversionbench.defenses.cryptographic_encryption._stream import Stream
from inversionbench.defenses.cryptographic_encryption.secure_aggregation import SecureAggregation
from inversionbench.federation.settings import Federation
from inversionbench.models.federated import build
from inversionbench.tracks.federated.rounds import train


def updates(n, d=500, scale=1e-2):
    return [{"w": scale * torch.randn(d // 10, 10, generator=generator(i)),
             "b": scale * torch.randn(10, generator=generator(100 + i))} for i in range(n)]  # fmt: skip


def round_of(payloads, observer="server", seed=0):
    return Round(3, generator(seed), [NONE.bytes_sent(p) for p in payloads], observer, True)


def uniform(raw: bytes) -> bool:
    """Byte histogram, chi-square at p > 1e-3."""
    counts = np.bincount(np.frombuffer(raw, np.uint8), minlength=256)
    expected = len(raw) / 256
    return bool(chi2.sf(((counts - expected) ** 2 / expected).sum(), 255) > 1e-3)


def protocol(x, degree=0, dropouts=0, number=0, seed=0):
    return module._session(x, degree, dropouts, number, Stream.seeded(generator(seed)))


@pytest.mark.parametrize(
    ("n", "degree", "dropouts"), [(1, 0, 0), (2, 0, 0), (5, 0, 0), (5, 0, 1), (9, 4, 0), (9, 4, 2)]
)
def test_the_sum_is_that_of_the_integers(n, degree, dropouts):
    x = [encode(u, 1.0, 8.0, 20)[0] for u in updates(n)]
    done = protocol(x, degree, dropouts)
    assert len(done.survivors) == n - dropouts
    assert np.array_equal(centred(done.total), sum(x[u] for u in done.survivors))
    assert done.agreements == n * (min(degree, n - 1) or n - 1) // 2  # k neighbours instead of all


def test_too_many_dropouts_end_the_round():
    x = [encode(u, 1.0, 8.0, 20)[0] for u in updates(5)]
    with pytest.raises(ValueError, match="dropped out"):
        protocol(x, dropouts=3)  # 3 of 5 shares are needed, 2 are left


def test_masked_vectors_look_uniform_and_are_independent_of_the_input():
    flat = updates(4, d=260_000)
    x = [encode(u, 1.0, 8.0, 20)[0] for u in flat]
    y = protocol(x).masked[0]
    assert len(y) * 4 > 1_000_000
    assert uniform(y.tobytes())
    assert abs(np.corrcoef(x[0], centred(y))[0, 1]) < 4 / np.sqrt(len(y))
    assert not uniform(x[0].astype(np.uint32).tobytes())  # the test sees an unmasked vector


def test_masks_are_fresh_in_every_round():
    x = [encode(u, 1.0, 8.0, 20)[0] for u in updates(3)]
    first, second = protocol(x, number=1, seed=1), protocol(x, number=2, seed=2)
    assert uniform((first.masked[0] - second.masked[0]).tobytes())
    again = protocol([v + 7 for v in x], number=1, seed=1)  # a reused mask leaves the difference of the inputs
    assert set(centred(again.masked[0] - first.masked[0]).tolist()) == {7}


def parties(n=4, self_mask=True):
    clients = [masking.Participant(u, 0, Stream(bytes([u]) * 32)) for u in range(n)]
    graph = masking.neighbours(n, 0, range(n))
    boxes = [c.share({v: clients[v].public for v in graph[u]}, 2) for u, c in enumerate(clients)]
    for u, c in enumerate(clients):
        c.receive({v: boxes[v][u] for v in graph[u]})
    x = [encode(u, 1.0, 8.0, 20)[0] for u in updates(n)]
    return clients, graph, x, [c.masked(v.astype(np.uint32), self_mask) for c, v in zip(clients, x)]


def test_a_client_gives_one_secret_of_another_only():
    clients, *_ = parties()
    clients[1].reveal({0, 1, 2}, {3})
    with pytest.raises(ValueError, match="both secrets"):
        clients[1].reveal({1, 2, 3}, {0})
    with pytest.raises(ValueError, match="both secrets"):
        clients[2].reveal({0, 1}, {1})


def pairwise_opened(clients, graph, y, victim, told):
    """What a server knows that was told the victim's secret key: the input without the pairwise masks."""
    secret = masking._secret(shamir.join(told, 2))
    for v in graph[victim]:
        key = masking.pair_key(secret, clients[v].public[1], "mask", 0, victim, v)
        y = y - masking.mask(key, len(y)) if victim < v else y + masking.mask(key, len(y))
    return centred(y)


@pytest.mark.parametrize("self_mask", [True, False])
def test_a_false_dropout_opens_nothing_because_of_the_self_mask(self_mask):
    clients, graph, x, y = parties(self_mask=self_mask)
    told = {v: clients[v].reveal({1, 2, 3}, {0})[0] for v in (1, 2, 3)}  # client 0 did send
    opened = pairwise_opened(clients, graph, y[0], 0, told)
    assert np.array_equal(opened, x[0]) == (not self_mask)  # without it this attack reads the input


def test_collusion_with_all_neighbours_reads_a_client_and_with_all_but_one_does_not():
    clients, _, x, y = parties()

    def colluding(corrupt):
        seed = shamir.join({v: clients[v].reveal({0, 1, 2, 3}, set())[0] for v in corrupt}, 2)
        left = y[0] - masking.mask(seed, len(y[0]))
        for v in corrupt:
            key = masking.pair_key(clients[v]._mask, clients[0].public[1], "mask", 0, 0, v)
            left = left - masking.mask(key, len(left))
        return centred(left)

    assert np.array_equal(colluding([1, 2, 3]), x[0])
    assert abs(np.corrcoef(colluding([1, 2]), x[0])[0, 1]) < 4 / np.sqrt(len(x[0]))


def test_a_changed_box_is_refused():
    from cryptography.exceptions import InvalidTag

    a, b = (masking.Participant(u, 0, Stream(bytes([u]) * 32)) for u in range(2))
    box = bytearray(a.share({1: b.public}, 1)[1])
    b.share({0: a.public}, 1)
    box[20] ^= 1
    with pytest.raises(InvalidTag):
        b.receive({0: bytes(box)})


@pytest.mark.parametrize("order", [range(12), [5, 2, 9, 0, 11, 3, 1, 8, 4, 10, 6, 7]])
def test_the_ring_of_neighbours(order):
    graph = masking.neighbours(12, 4, order)
    assert all(len(g) == 4 and all(u in graph[v] for v in g) for u, g in enumerate(graph))
    reached, todo = {0}, [0]
    while todo:
        todo += [v for v in graph[todo.pop()] if v not in reached and not reached.add(v)]
    assert len(reached) == 12


def test_shares():
    stream = Stream(bytes(32))
    shares = shamir.split(b"s" * 32, 3, range(5), stream)
    assert shamir.join({k: shares[k] for k in (4, 1, 2)}, 3) == b"s" * 32
    with pytest.raises(ValueError, match="shares open"):
        shamir.join({k: shares[k] for k in (4, 1)}, 3)
    with pytest.raises(ValueError, match="belong"):
        shamir.join({k: shares[k] for k in (4, 1)}, 2)  # below the threshold: not the secret


@pytest.mark.parametrize("weights", [[1.0] * 4, [1.0, 2.0, 3.0, 2.0]])
def test_the_mean_is_the_plain_one_in_fixed_point(weights):
    payloads = updates(4)
    defense = SecureAggregation(strength=4)
    done = defense.exchange(payloads, weights, round_of(payloads))
    plain, _ = NONE.aggregate(payloads, weights)
    assert all(float((done.mean[n] - t).abs().max()) <= 2.0**-21 + 1e-9 for n, t in plain.items())
    assert all(torch.equal(done.view[0][n], done.view[3][n]) for n in plain)
    assert done.bytes_up == [defense.bytes_sent(payloads[0])] * 4
    assert done.facts["clients_per_sum"] == 4


def test_who_sees_what():
    payloads = updates(4)
    defense, one = SecureAggregation(strength=2), [1.0] * 4
    seen = {o: defense.exchange(payloads, one, round_of(payloads, o)).view[0]
            for o in ("server", "eavesdropper", "client", "collusion")}  # fmt: skip
    near = lambda a, b: float((a - b).abs().max()) < 1e-5
    w = [p["w"] for p in payloads]
    assert near(seen["server"]["w"], (w[0] + w[1]) / 2)
    assert near(seen["collusion"]["w"], w[0])  # of two clients, one tells the other's
    assert near(seen["client"]["w"], (w[0] + w[2] + w[3]) / 3)
    assert float(seen["eavesdropper"]["w"].abs().max()) > 100


def test_the_ring_must_hold_the_sum():
    with pytest.raises(ValueError, match="ring"):
        SecureAggregation(strength=256)
    assert SecureAggregation(strength=256, bits=16).crowd == 256
    for wrong in ({"strength": 2.5}, {"strength": 2, "neighbours": 3}):
        with pytest.raises(ValueError, match="secure_aggregation"):
            SecureAggregation(**wrong)


class FixedPoint(Defense):
    """The same integers, added in the clear."""

    def aggregate(self, payloads, weights):
        x = [encode(p, 1.0, 8.0, 20)[0] for p in payloads]
        return decode(sum(x), payloads[0], 20, len(x)), payloads


def test_training_is_that_of_the_fixed_point_bit_for_bit():
    x, y = data().private.images(), data().private.labels()
    nets = []
    for defense in (FixedPoint(), SecureAggregation(strength=2)):
        net = build(CONVNET, data().shape, data().classes, generator(0))
        federation = Federation(clients=5, batch=4)  # the last group has three clients
        train(net, x, y, 10, federation, 3, defense, generator(1), generator(2))
        nets.append(net)
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters()))


def test_more_clients_in_a_sum_leak_less_and_a_masked_update_nothing():
    values = {}
    for clients in (0, 1, 4):
        defense = SecureAggregation(strength=clients)
        made = target(scenario(subjects=2), defense)
        values[clients] = psnr(scenario(), made, reconstruct(scenario(), made, "inverting_gradients", steps=150))
        assert made.utility["bytes_up"] >= made.utility["bytes_dense"]
    assert abs(values[1] - values[0]) < 1  # a sum of one is the client's own update
    assert values[4] < values[0] - 1.5
    where = scenario(subjects=2, observer="eavesdropper")
    made = target(where, SecureAggregation(strength=4))
    masked = psnr(where, made, reconstruct(where, made, "inverting_gradients", steps=150))
    assert masked < values[0] - 4


def test_rounds_are_filled_up():
    made = target(scenario(subjects=3), SecureAggregation(strength=8))
    assert made.released["defense"]["clients_per_sum"] == 8
    assert made.released["updates"]["client"]["body.0.weight"].shape[0] == 3


def test_a_sum_is_attacked_as_one_large_batch():
    """The adaptive attack finds what the naive one, which takes the sum for one client's update, does not."""
    where = scenario(subjects=3)
    made = target(where, SecureAggregation(strength=2))  # the second sum holds a client that nobody attacks
    naive, adaptive = (reconstruct(where, made, name, steps=200) for name in ("inverting_gradients", "inverting_sum"))
    assert adaptive.data.shape == naive.data.shape
    assert adaptive.notes["clients_in_sum"] == 2
    assert torch.equal(adaptive.labels, made.released["labels"])
    values = [psnr(where, made, answer) for answer in (naive, adaptive)]
    assert values[1] > values[0] + 1.5
    alone = target(where, NONE)
    plain, same = (reconstruct(where, alone, name, steps=20) for name in ("inverting_gradients", "inverting_sum"))
    assert torch.equal(plain.data, same.data)  # without a sum it is the plain attack
