"""DGC and local DP: the ingredients of their cards, their accounting, and what they cost."""

import math

import pytest
import torch
from federated_cells import CONVNET, data, generator, psnr, reconstruct, scenario, target

from inversionbench.core.defense import NONE, Client
from inversionbench.defenses.differential_privacy import _accounting as accounting
from inversionbench.defenses.differential_privacy.local_dp import LocalDp
from inversionbench.defenses.gradient_pruning.dgc import Dgc, select
from inversionbench.federation.settings import Federation
from inversionbench.models.federated import build
from inversionbench.tracks.federated.rounds import split, train


def client(round=0, state=None, clients=4, n=400):
    parameters = {"w": torch.zeros(n // 10, 10), "b": torch.zeros(10)}
    return Client(round, 10, 0, clients, 8, parameters, generator(round), state if state is not None else {})


def update(seed=0, n=400):
    return {
        "w": torch.randn(n // 10, 10, generator=generator(seed)), "b": torch.randn(10, generator=generator(seed + 1)),
    }  # fmt: skip


def test_dgc_loses_nothing():
    """What was sent and what remains is the velocity before the step; sent entries leave both memories."""
    state: dict = {}
    defense = Dgc(strength=0.95)
    u, v = torch.zeros(40, 10), torch.zeros(40, 10)
    for t in range(5):
        g = update(t)
        u = 0.9 * u + g["w"]
        v = v + u
        sent = defense.client_update(g, client(t, state))["w"]
        memory = state["dgc"]["w"]
        assert torch.allclose(sent + memory["v"], v, atol=1e-6)
        assert int((sent != 0).sum()) == 20
        assert float(v[sent != 0].abs().min()) >= float(memory["v"].abs().max())
        assert not bool(memory["u"][sent != 0].any())
        u, v = memory["u"].clone(), memory["v"].clone()


def test_dgc_that_keeps_everything_is_momentum_sgd():
    state: dict = {}
    defense = Dgc(strength=1e-9, masking=False)  # masking would reset the momentum it keeps
    velocity = {n: torch.zeros_like(t) for n, t in update().items()}
    for t in range(6):
        g = update(t)
        velocity = {n: 0.9 * velocity[n] + g[n] for n in g}
        sent = defense.client_update(g, client(t, state))
        assert all(torch.allclose(sent[n], velocity[n], atol=1e-5) for n in g)


def test_dgc_first_round_is_the_top_of_one_gradient():
    g = update()
    sent = Dgc(strength=0.9).client_update(g, client())
    assert torch.equal(sent["w"], select(g["w"], 0.1)[0])
    assert torch.equal(sent["b"], g["b"])  # one-dimensional parameters are dense


def test_dgc_clips_before_it_accumulates():
    g = update()
    norm = math.sqrt(sum(float(t.square().sum()) for t in g.values()))
    sent = Dgc(strength=1e-9, clip=1.0).client_update(g, client(clients=4))
    assert torch.allclose(sent["w"], g["w"] * 0.5 / norm, atol=1e-6)


def test_dgc_warm_up_is_exponential():
    kept = [Dgc(strength=0.999, warm_up=5).kept(t) for t in range(7)]
    assert kept == pytest.approx([0.3162, 0.1, 0.03162, 0.01, 0.003162, 0.001, 0.001], rel=1e-3)


def test_dgc_counts_bytes():
    defense, g = Dgc(strength=0.9), update()
    sent = defense.client_update(g, client())
    assert defense.bytes_sent(sent) == 40 * 4 + 50 + 40  # values, a bitmap of 400 bits, the dense bias
    assert NONE.bytes_sent(sent) == 1640
    with pytest.raises(ValueError, match="sparsity"):
        Dgc(strength=1.0)


def test_the_exact_condition():
    for sigma, epsilon in ((1, 4.377), (2, 1.993), (5, 0.726), (10, 0.341)):
        assert accounting.epsilon_exact(sigma, 1e-5) == pytest.approx(epsilon, abs=2e-3)
    assert accounting.epsilon_exact(0.05, 1e-5) < accounting.epsilon_gaussian((0.05,), 1e-5)


def test_local_dp_noise_is_twice_the_clip_times_the_multiplier():
    defense = LocalDp(strength=0.5, clip=2.0, growth=1.0)
    n = 410
    multiplier = 0.5 / (2 * math.sqrt(n))
    assert defense.noise_std(n, 0) == pytest.approx(2 * 2.0 * multiplier)
    noise = []
    for seed in range(40):
        ctx = client()
        ctx.rng = generator(seed)
        sent = defense.client_update(update(), ctx)
        flat = torch.cat([t.flatten() for t in update().values()])
        clean = flat * min(1.0, 2.0 / float(flat.norm()))
        noise.append(torch.cat([t.flatten() for t in sent.values()]) - clean)
    assert float(torch.stack(noise).std()) == pytest.approx(defense.noise_std(n, 0), rel=0.02)
    told = ctx.state["public"]
    assert told["epsilon_round"] == pytest.approx(accounting.epsilon_exact(multiplier, 1e-5))
    assert told["private"] == 0.0  # epsilon in the hundreds is no privacy


def test_local_dp_that_deserves_its_name():
    sigma = 10 * 2 * math.sqrt(410)
    told = LocalDp(strength=sigma, growth=1.0).spent(410, 50)
    assert told["epsilon_total"] == pytest.approx(3.19, rel=0.01)
    assert told["private"] == 1.0


def test_local_dp_spends_more_later():
    assert LocalDp(strength=1.0, growth=1.02).noise_std(100, 50) < LocalDp(strength=1.0, growth=1.02).noise_std(100, 0)
    equal = LocalDp(strength=50.0, growth=1.0).spent(100, 20)["epsilon_total"]
    grown = LocalDp(strength=50.0, growth=1.02).spent(100, 20)["epsilon_total"]
    assert grown > equal


def test_local_dp_chooses_coordinates_in_public():
    defense, state = LocalDp(strength=1e-9, keep=0.1, clip=1e9), {}
    first = defense.client_update(update(), client(0, state))["w"] != 0
    other = defense.client_update(update(5), client(0, {}))["w"] != 0
    assert torch.equal(first, other)  # the client's own values play no part
    ctx = client(1, state)
    ctx.parameters["w"][:4] = 3.0  # the global model moved in these
    sent = defense.client_update(update(7), ctx)
    second = sent["w"] != 0
    assert int(second[:4].sum()) >= 21  # half of the 41 where the model moved
    assert sum(int((t != 0).sum()) for t in sent.values()) == 41
    assert bool(second[4:].any())  # and others: what was never sent has never moved
    mean, _ = defense.aggregate([{"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([4.0, 6.0])}], [1.0, 1.0])
    assert mean["w"].tolist() == [3.0, 6.0]  # per coordinate, over those who sent it


@pytest.mark.parametrize("defense", [Dgc(), LocalDp()], ids=["dgc", "local_dp"])
def test_strength_0_is_the_undefended_run_bit_for_bit(defense):
    where = scenario(subjects=2)
    plain, off = target(where), target(where, defense)
    assert all(
        torch.equal(t, off.released["updates"]["client"][n]) for n, t in plain.released["updates"]["client"].items()
    )
    a, b = (reconstruct(where, m, "inverting_gradients", steps=5) for m in (plain, off))
    assert torch.equal(a.data, b.data)


@pytest.mark.parametrize(
    "strengths", [[Dgc(strength=s) for s in (0.9, 0.999)], [LocalDp(strength=s) for s in (0.3, 10.0)]],
    ids=["dgc", "local_dp"],
)  # fmt: skip
def test_more_strength_hides_more(strengths):
    where = scenario(subjects=4)
    values, cosines = [], []
    for defense in (NONE, *strengths):
        made = target(where, defense)
        cosines.append(made.utility["cos_sent_true"])
        values.append(psnr(where, made, reconstruct(where, made, "inverting_gradients", defense=defense, steps=60)))
    assert cosines[0] > cosines[1] > cosines[2]
    assert values[0] > values[2] + 2
    assert values[1] > values[2] + 1


def test_noise_far_above_the_signal_is_no_better_than_nothing():
    where, defense = scenario(subjects=4), LocalDp(strength=30.0)
    made = target(where, defense)
    blind = psnr(where, made, reconstruct(where, made, "wrong_gradient", defense=defense, steps=40))
    assert psnr(where, made, reconstruct(where, made, "inverting_gradients", defense=defense, steps=40)) < blind + 2


def learn(defense, rounds=50, seed=0):
    """Mean loss after some federated rounds, and bytes per client and round."""
    net = build(CONVNET, data().shape, data().classes, generator(seed))
    x, y = data().private.images(), data().private.labels()
    sent = train(net, x, y, 10, Federation(clients=4, batch=8, rate=0.05), rounds, defense, generator(1), generator(2))
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(net(x), y)), sent


def test_residuals_are_what_makes_sparse_training_work():
    """Loss after 100 rounds, over seeds: 0.6 to 1.0 with residuals, 2.2 without (2.3 is chance), 0.0 to 0.3 dense."""
    plain, dense = learn(NONE, 100)
    kept, bytes_kept = learn(Dgc(strength=0.99), 100)
    dropped, _ = learn(Dgc(strength=0.99, residual=False), 100)
    assert plain < 0.8
    assert kept < dropped - 0.6
    assert bytes_kept < 0.05 * dense


def test_fewer_coordinates_and_later_budget_help_at_one_epsilon():
    """Where noise drowns the dense update a part of it learns more; a budget that grows learns more than a constant one
    of the same total."""
    dense, part = LocalDp(strength=100.0), LocalDp(strength=100.0 * 0.05**0.5, keep=0.05)
    assert dense.spent(8000, 50)["epsilon_round"] == pytest.approx(part.spent(400, 50)["epsilon_round"], rel=1e-6)
    assert learn(part)[0] < learn(NONE, 1)[0] < learn(dense)[0]
    grown = LocalDp(strength=10.0)
    mean = (sum(grown.growth ** (2 * t) for t in range(50)) / 50) ** 0.5  # of the inverse squared deviations
    even = LocalDp(strength=10.0 / mean, growth=1.0)
    assert even.spent(8000, 50)["epsilon_total"] == pytest.approx(grown.spent(8000, 50)["epsilon_total"], rel=1e-6)
    assert learn(grown)[0] < learn(even)[0] - 0.05


def test_clients_share_the_private_set():
    y = data().private.labels()
    for skew in (0.0, 0.3):
        shares = split(y, Federation(clients=5, skew=skew), generator())
        assert len(shares) == 5
        if not skew:
            assert torch.cat(shares).sort().values.tolist() == list(range(len(y)))
    counts = [torch.bincount(y[s], minlength=10) for s in split(y, Federation(clients=5, skew=0.3), generator())]
    assert max(int(c.max()) for c in counts) > 8  # skewed


def test_a_trained_global_model_is_attacked_where_it_stands():
    where = scenario(subjects=2, training={"rounds": 5, "clients": 2, "batch": 8})
    made = target(where)
    fresh = target(scenario(subjects=2))
    assert not torch.equal(made.released["state"]["body.0.weight"], fresh.released["state"]["body.0.weight"])
    assert max(map(abs, made.truth["checks"]["match_at_truth"])) < 2e-6
