"""DP-SGD: the accountant of the card, per-example clipping, the noise, and what they do to an attack."""

import math

import pytest
import torch
from federated_cells import data, generator, psnr, reconstruct, scenario, target
from torch.nn import functional as F

from inversionbench.core.defense import NONE, Step
from inversionbench.core.errors import UserError
from inversionbench.defenses.differential_privacy._per_sample import known, per_sample
from inversionbench.defenses.differential_privacy.dp_sgd import DpSgd, epsilon, private_mean
from inversionbench.models.base import trace
from inversionbench.models.federated import build

FIXTURES = [  # sampling rate, sigma, steps, epsilon by RDP and by PLD, at delta 1e-5
    (0.01, 4, 10000, 1.036, 0.960), (250 / 60000, 1.3, 3600, 0.942, 0.858), (250 / 60000, 1.1, 14400, 2.562, 2.359),
    (250 / 60000, 0.7, 10800, 6.233, 5.565), (0.01, 1.0, 1000, 2.101, 1.829), (0.05, 1.0, 200, 5.368, 4.766),
    (0.1, 2.0, 100, 2.581, 2.338), (1, 5, 1, 0.795, 0.726), (1, 10, 50, 3.189, 2.943),
]  # fmt: skip


@pytest.mark.parametrize(("q", "sigma", "steps", "rdp", "pld"), FIXTURES)
def test_the_accountants(q, sigma, steps, rdp, pld):
    assert epsilon(q, sigma, steps, 1e-5, "rdp") == pytest.approx(rdp, rel=0.01)
    if steps <= 1000:  # the longer ones cost seconds
        tight = epsilon(q, sigma, steps, 1e-5, "prv")  # an upper bound, by at most 0.01
        assert 0.995 * pld < tight < pld + 0.011


def model_and_batch(model="convnet", n=5):
    net = build({"name": model}, (3, 16, 16), 4, generator())
    return net, torch.rand(n, 3, 16, 16, generator=generator(1)), torch.arange(n) % 4


def one_by_one(net, x, y):
    rows = [torch.autograd.grad(F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]), list(net.parameters()))
            for i in range(len(x))]  # fmt: skip
    names = [n for n, _ in net.named_parameters()]
    return {n: torch.stack([r[i] for r in rows]) for i, n in enumerate(names)}


@pytest.mark.parametrize(("model", "ways"), [("convnet", ("opacus", "func")), ("mlp", ("opacus", "func")),
                                             ("vit", ("auto",))])  # fmt: skip
def test_every_example_has_its_own_gradient(model, ways):
    net, x, y = model_and_batch(model)
    true = one_by_one(net, x, y)
    for way in ways:
        got = per_sample(net, x, y, way)
        assert set(got) == set(true)
        assert all(torch.allclose(got[n], true[n], atol=2e-6) for n in true), way
    assert known(net) == (model != "vit")
    assert not net.training
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())
    assert all(p.grad is None and not hasattr(p, "grad_sample") for p in net.parameters())


def test_soft_labels_and_empty_lots():
    net, x, y = model_and_batch()
    soft = F.one_hot(y, 4).float()
    hard, mixed = per_sample(net, x, y), per_sample(net, x, soft)
    assert all(torch.allclose(hard[n], mixed[n], atol=1e-6) for n in hard)
    empty = private_mean(per_sample(net, x[:0], y[:0]), 1.0, 2.0, 4.0, generator())
    values = torch.cat([t.flatten() for t in empty.values()])
    assert float(values.std()) == pytest.approx(2.0 / 4, rel=0.05)  # an empty lot sends noise all the same


def test_batch_norm_is_refused():
    net, x, y = model_and_batch("resnet8")
    net.bn_mode("train_private")
    with pytest.raises(UserError, match=r"statistics of the batch.*convnet"):
        per_sample(net, x, y)
    assert len(per_sample(net.bn_mode("eval_public"), x, y)) == len(dict(net.named_parameters()))


def flat(named):
    return torch.cat([t.flatten() for t in named.values()])


def test_without_noise_and_clip_it_is_the_mean_gradient():
    net, x, y = model_and_batch()
    plain = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    mine = private_mean(per_sample(net, x, y), 1e9, 0.0, 5.0, generator())
    assert torch.allclose(flat(mine), torch.cat([g.flatten() for g in plain]), atol=1e-6)


def test_every_example_is_clipped_by_its_whole_norm():
    net, x, y = model_and_batch()
    samples = per_sample(net, x, y)
    rows = torch.stack([flat({n: t[i] for n, t in samples.items()}) for i in range(5)])
    norms = rows.norm(dim=1)
    clip = float(norms.median())  # some examples are clipped, some are not
    mine = flat(private_mean(samples, clip, 0.0, 5.0, generator()))
    clipped = rows * (clip / norms).clamp_max(1.0)[:, None]
    assert torch.allclose(mine, clipped.mean(0), atol=2e-6)
    batch = rows.mean(0)
    fake = batch * min(1.0, clip / float(batch.norm()))  # the commonest fake: the clipped batch gradient
    assert not torch.allclose(mine, fake, atol=1e-4)


def test_noise_is_sigma_times_clip_over_the_expected_lot():
    net, x, y = model_and_batch()
    samples = per_sample(net, x, y)
    clean = flat(private_mean(samples, 0.5, 0.0, 8.0, generator()))
    noisy = flat(private_mean(samples, 0.5, 3.0, 8.0, generator(4)))
    assert float((noisy - clean).std()) == pytest.approx(3.0 * 0.5 / 8, rel=0.03)
    assert torch.equal(noisy, flat(private_mean(samples, 0.5, 3.0, 8.0, generator(4))))
    five = flat(private_mean(samples, 0.5, 0.0, 5.0, generator()))
    assert torch.allclose(clean * 8 / 5, five, atol=1e-7)  # the lot expected, not the five that came


def test_the_hook_uses_the_lot_and_its_own_randomness():
    net, x, y = model_and_batch()
    out = trace(net, x)
    ctx = Step(net, x, y, out.logits, out.hidden, 0, 0, 1, 4, generator(9))
    given = {n: torch.full_like(p, 7.0) for n, p in net.named_parameters()}
    mine = DpSgd(strength=0.1).gradient(given, ctx)
    again = private_mean(per_sample(net, x, y), 1.0, 0.1, 5.0, generator(9))
    assert torch.equal(flat(mine), flat(again))
    assert DpSgd().gradient(given, ctx) is given


def test_the_guarantee_says_what_it_counts():
    told = DpSgd(strength=1.0).guarantee(0.05, 200)
    assert told["epsilon_total"] == pytest.approx(5.368, rel=0.01)
    assert told["epsilon_round"] == pytest.approx(4.377, abs=2e-3)  # no credit for sampling
    assert told["private"] == 1.0
    assert told["sampling_rate"] == 0.05
    assert DpSgd(strength=0.01).guarantee(0.05, 200)["private"] == 0.0
    assert DpSgd().guarantee(0.05, 200) == {}
    known = DpSgd(strength=1.0).public_knowledge()
    assert known["neighbours"] == "add or remove one record"
    assert known["accountant"] == "opacus rdp"
    with pytest.raises(ValueError, match="dp_sgd: expected"):
        DpSgd(strength=1.0, accountant="moments")


def test_more_noise_hides_more():
    where, values, cosines = scenario(subjects=3), [], []
    for defense in (NONE, DpSgd(strength=0.01), DpSgd(strength=0.03), DpSgd(strength=1.0)):
        made = target(where, defense)
        cosines.append(made.utility["cos_sent_true"])
        values.append(psnr(where, made, reconstruct(where, made, "inverting_gradients", defense=defense, steps=150)))
    assert values[0] > values[1] + 1 > values[2] + 1.5 > values[3] + 2
    assert math.isclose(cosines[0], 1.0, abs_tol=1e-6)  # clipping and noise are H5: what H6 gets is what is sent
    assert cosines[1:] == pytest.approx([1.0] * 3, abs=1e-6)


def test_strength_0_is_the_undefended_run_bit_for_bit():
    where = scenario(subjects=2)
    plain, off = (target(where, d).released["updates"]["client"] for d in (NONE, DpSgd()))
    assert all(torch.equal(plain[n], off[n]) for n in plain)


def test_federated_training_with_it():
    from inversionbench.federation.settings import Federation
    from inversionbench.tracks.federated.rounds import train

    losses = []
    for defense in (DpSgd(strength=0.05), DpSgd(strength=20.0)):
        net = build({"name": "convnet"}, data().shape, data().classes, generator())
        x, y = data().private.images(), data().private.labels()
        train(net, x, y, 10, Federation(clients=2, batch=16, rate=0.1), 20, defense, generator(1), generator(2))
        with torch.no_grad():
            losses.append(float(F.cross_entropy(net(x), y)))
    assert losses[0] < 2.3 < losses[1]
