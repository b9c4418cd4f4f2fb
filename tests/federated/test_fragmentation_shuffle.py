"""Fragments among peers: exact means, routes, what the server and a colluding peer hold."""

import numpy as np
import pytest
import torch
from federated_cells import generator, psnr, reconstruct, scenario, target

from inversionbench.core.defense import NONE
from inversionbench.core.exchange import Round
from inversionbench.defenses._fixed_point import centred, decode, encode
from inversionbench.defenses.gradient_perturbation import fragmentation_shuffle as module
from inversionbench.defenses.gradient_perturbation.fragmentation_shuffle import FragmentationShuffle

SHAPES = {"a.weight": (8, 5, 3, 3), "a.bias": (8,), "b.weight": (10, 32), "b.bias": (10,)}


def updates(n, seed=0):
    rngs = [generator(seed + i) for i in range(n)]
    return [{name: 0.1 * torch.randn(s, generator=rng) for name, s in SHAPES.items()} for rng in rngs]


def run(defense, n=8, observer="server", seed=0, weights=None):
    payloads = updates(n)
    sizes = [defense.bytes_sent(p) for p in payloads]
    return payloads, defense.exchange(payloads, weights or [1.0] * n, Round(2, generator(seed), sizes, observer, True))


@pytest.mark.parametrize("variant", ["partition", "shares"])
@pytest.mark.parametrize("weights", [[1.0] * 8, [1.0, 2, 3, 2, 1, 1, 4, 2]])
def test_the_mean_is_that_of_federated_averaging(variant, weights):
    payloads, done = run(FragmentationShuffle(strength=5, variant=variant), weights=weights)
    relative = [w / (sum(weights) / 8) for w in weights]
    exact = decode(sum(encode(p, w, 8.0, 20)[0] for p, w in zip(payloads, relative)), payloads[0], 20, 8)
    plain = NONE.aggregate(payloads, weights)[0]
    assert all(torch.equal(done.mean[n], exact[n]) for n in SHAPES)
    assert all(float((done.mean[n] - plain[n]).abs().max()) < 1e-6 for n in SHAPES)


def test_a_bias_never_shares_a_fragment_with_its_weights():
    for fragments in (2, 8):
        owner = module.partition(SHAPES, fragments, 1)
        assert set(owner.tolist()) == set(range(fragments))
        parts = dict(zip(SHAPES, np.split(owner, np.cumsum([int(np.prod(s)) for s in SHAPES.values()])[:-1])))
        for layer in "ab":
            weights = parts[f"{layer}.weight"].reshape(len(parts[f"{layer}.bias"]), -1)
            assert not (weights == parts[f"{layer}.bias"][:, None]).any()
    assert not np.array_equal(module.partition(SHAPES, 8, 1), module.partition(SHAPES, 8, 2))  # drawn anew


def test_no_peer_gets_everything():
    for fragments in (2, 7, 20):
        table = module.routes(6, fragments, generator(fragments))
        for i, row in enumerate(table):
            assert i not in row
            assert np.bincount(row, minlength=6).max() <= -(-fragments // 5)


def session(fragments=6, least=3, variant="partition", n=8, seed=0):
    x = np.stack([encode(u, 1.0, 8.0, 20)[0] for u in updates(n)])
    owner = module.partition(SHAPES, fragments, 0)
    return x, owner, module._Session(x, owner, fragments, least, variant, generator(seed))


def test_every_sum_has_enough_clients_and_every_client_is_in_one():
    _, _, done = session(least=3)
    assert min(done.counts) >= 3
    assert all(sorted(u for _, m, _ in held for u in m) == list(range(8)) for held in done.sums)
    assert min(session(least=1)[2].counts) == 1  # without the rule single fragments arrive


def test_the_server_reads_means_of_some_clients_per_fragment():
    x, owner, done = session()
    rows, exposed = done.view("server", "fragments", generator(3))
    assert not exposed.any()
    for f in range(6):
        allowed = [x[m][:, owner == f].mean(0) for _, m, _ in done.sums[f]]
        assert all(any(np.allclose(row[owner == f], a) for a in allowed) for row in rows)
    whole, _ = done.view("server", "mean", generator(3))
    assert np.allclose(whole, x.mean(0))


def test_collusion_exposes_what_went_through_the_peer():
    """One peer of n - 1 takes each fragment: 1 / (n - 1) of a victim's coordinates on average."""
    shares = [session(seed=s)[2].view("collusion", "", generator())[1].mean() for s in range(60)]
    assert abs(float(np.mean(shares)) - 1 / 7) < 0.02
    x, _, done = session()
    rows, alone = done.view("collusion", "", generator())
    hit = done.routes[0] == 1
    assert np.array_equal(rows[0][hit[done.owner]], x[0][hit[done.owner]])
    assert alone[0] == pytest.approx(hit[done.owner].mean())


def test_a_share_alone_is_uniform():
    from scipy.stats import chi2

    x, _, done = session(variant="shares", fragments=3, n=8)
    shares = done._shares(generator(1))
    raw = np.frombuffer(shares[:, :2].astype(np.uint32).tobytes(), np.uint8)
    counts = np.bincount(raw, minlength=256)
    assert chi2.sf(((counts - len(raw) / 256) ** 2 / (len(raw) / 256)).sum(), 255) > 1e-3
    assert abs(np.corrcoef(centred(shares[0, 2]), x[0])[0, 1]) < 4 / np.sqrt(x.shape[1])
    assert not done.view("collusion", "", generator())[1].any()


def test_traffic():
    payloads, done = run(FragmentationShuffle(strength=4))
    dense, own = NONE.bytes_sent(payloads[0]), FragmentationShuffle(strength=4).bytes_sent(payloads[0])
    assert own == dense + 4 * module.HEADER
    assert all(up >= own for up in done.bytes_up)
    assert sum(done.bytes_up) - 8 * own <= 8 * dense + 1000  # at most once more on, and to the server
    assert FragmentationShuffle(strength=4, variant="shares").bytes_sent(payloads[0]) == 4 * dense + 32


@pytest.mark.parametrize("wrong", [
    {"strength": 2.5}, {"clients": 2}, {"least": 9}, {"variant": "x"}, {"bits": 26}, {"reads": "all"},
])  # fmt: skip
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="fragmentation_shuffle"):
        FragmentationShuffle(**wrong)


def test_the_server_cannot_invert_what_it_holds():
    where = scenario(subjects=2)
    values = []
    for defense in (NONE, FragmentationShuffle(strength=8)):
        made = target(where, defense)
        values.append(psnr(where, made, reconstruct(where, made, "inverting_gradients", steps=120)))
    assert values[1] < values[0] - 3
    assert made.utility["clients_per_sum"] >= 3
