"""VRM, DCS-2 and group statistics; no defense of the data acts at strength 0: the ingredients of their cards."""

import pytest
import torch
from defended_cells import as_client, attack, flat, images, learn, network, scores
from federated_cells import data, generator, reconstruct, scenario, target
from torch.nn import functional as F

from inversionbench.core.defense import NONE
from inversionbench.core.protocol import Protocol
from inversionbench.defenses.feature_perturbation._search import fit
from inversionbench.defenses.feature_perturbation.ats import Ats
from inversionbench.defenses.feature_perturbation.dcs2 import Dcs2, project
from inversionbench.defenses.feature_perturbation.image_augmentation import ImageAugmentation
from inversionbench.defenses.feature_perturbation.statistical_features_kd import StatisticalFeaturesKd
from inversionbench.defenses.feature_perturbation.vrm import Vrm, rectangle
from inversionbench.federation.client import local_update


@pytest.mark.parametrize("kind", [Vrm, Ats, ImageAugmentation, Dcs2, StatisticalFeaturesKd], ids=lambda k: k.id)
def test_strength_0_is_the_undefended_round(kind):
    where = scenario(subjects=2, batch_size=2)
    off, plain = target(where, kind()), target(where)
    seen = plain.released["updates"]["client"]
    assert all(torch.equal(t, off.released["updates"]["client"][n]) for n, t in seen.items())
    assert kind().prepare(data(), lambda rng: network(rng=rng), generator()) is not None
    with pytest.raises(ValueError, match=kind.id):
        kind(strength=-1.0)


# vicinal risk minimisation


def test_vrm_gradient_is_that_of_the_mixed_pair():
    x, y = images(2)
    own = as_client(Vrm(strength=0.3, a=0.0))
    net = network()
    update, mixed, soft = local_update(net, x, y, Protocol(batch_size=2), own, 10, generator(5))
    held = data().private.images()[:40]
    for row, image, label, target_row in zip(mixed, x, y, soft):
        partner = (row - 0.7 * image) / 0.3
        found = int((held - partner).flatten(1).norm(dim=1).argmin())
        assert torch.allclose(held[found], partner, atol=1e-5)
        hot = 0.7 * F.one_hot(label, 10) + 0.3 * F.one_hot(data().private.labels()[found], 10)
        assert torch.allclose(target_row, hot)
    loss = -(soft * net(mixed).log_softmax(dim=1)).sum(dim=1).mean()
    by_hand = torch.autograd.grad(loss, list(net.parameters()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(update.values(), by_hand))
    again, _ = own.train_transform(x, y, generator(6), 1)
    assert not torch.equal(again, mixed)  # fresh at each step
    with pytest.raises(ValueError, match="for_client"):
        Vrm(strength=0.3).train_transform(x, y, generator(), 0)


def test_vrm_shares_stay_under_the_cap():
    means = []
    for strength in (0.1, 0.3, 0.5, 0.7):
        w = Vrm(strength=strength).shares(2000, generator())
        assert float(w.max()) <= 1 - strength + 1e-6
        means.append(float(w.mean()))
    assert means == sorted(means, reverse=True)
    assert float(Vrm(strength=0.1, conceal=True).shares(2000, generator()).max()) <= 0.5
    x, y = images(4)
    pasted, soft = as_client(Vrm(strength=0.5, member="patch", a=0.0)).train_transform(x, y, generator(), 0)
    kept = (pasted == x).all(dim=1).float().mean(dim=(1, 2))
    share = soft[torch.arange(4), y]
    mixed = share < 1  # a partner of the same class leaves the label whole
    assert torch.allclose(kept[mixed], share[mixed].clamp_min(0.4), atol=0.15)
    assert float(rectangle((10, 10), 0.49, generator()).sum()) == 49
    noisy, same = Vrm(strength=0.2, member="gauss").train_transform(x, y, generator(), 0)
    assert torch.equal(same, y)
    assert 0.1 < float((noisy - x).std()) < 0.2


def test_vrm_hides_the_image_and_not_the_mix():
    """Over four seeds at strength 0.5: 5.2 dB (sd 0.8) less than at 0.1, 5.6 (sd 1.0) less than undefended, 3.8 (sd
    0.5) less than of the mix; the loss falls by 0.81 (sd 0.12). Without a defense all are 0."""
    to_x, to_mix = zip(*(scores(Vrm(strength=s, a=0.0), seeds=3) for s in (0.1, 0.5)))
    assert to_x[1] < to_x[0] - 1
    assert to_x[1] < attack(seeds=3) - 2
    assert to_mix[1] > to_x[1] + 1.5
    assert learn(Vrm(strength=0.3)) < learn(NONE, rounds=1) - 0.4


# concealing samples


def test_dcs2_crafts_what_it_promises():
    """The gradient stays near (a cosine of 0.97, whatever the proxy began with), the picture moves away (by 53 to 55,
    proxies begin at 7 to 29), the output is kept (to 0.07 to 0.10 of its norm)."""
    net = fit(network(), data().private.images(), data().private.labels(), 20, generator())
    x, y = images(1)
    proxy, label = data().private.images()[10:11], data().private.labels()[10:11]
    assert label == y
    params = list(net.parameters())

    def seen(z):
        goal = flat(torch.autograd.grad(F.cross_entropy(net(x), y), params))
        own = flat(torch.autograd.grad(F.cross_entropy(net.body(z), label), params))
        away = float((z - net.front(x)).norm())
        off = float((net.body(z) - net(x)).norm() / net(x).norm())
        return float(F.cosine_similarity(goal, own, dim=0)), away, off

    start = seen(Dcs2(strength=0.7, iterations=0).craft(net, x, y, proxy, label))
    made = Dcs2(strength=0.7, iterations=100).craft(net, x, y, proxy, label)
    end = seen(made)
    assert end[0] > 0.9
    assert end[1] > start[1] + 10
    assert end[2] < 0.2
    low, high = net.front.box
    assert float(made.min()) >= low
    assert float(made.max()) <= high
    free = Dcs2(strength=0.7, iterations=100, clamp=False, far=60.0).craft(net, x, y, proxy, label)
    assert float(free.abs().max()) > high  # what "different" partly means without the box


def test_dcs2_keeps_descent():
    g0, g1 = [torch.tensor([2.0, 0.0])], [torch.tensor([-4.0, 1.0])]
    after = project(g1, g0, margin=0.5)
    assert float((after[0] * g0[0]).sum()) == pytest.approx(-8 * 1e-3 / (4 + 1e-3), rel=1e-3)  # 0 but for the ridge
    assert torch.equal(project(g0, g0, 0.5)[0], g0[0])
    own = as_client(Dcs2(strength=0.7, iterations=10))
    net, (x, y) = network(), images(3)
    sent, used, _ = local_update(net, x, y, Protocol(batch_size=3), own, 10, generator(2))
    plain, _, _ = local_update(net, x, y, Protocol(batch_size=3), NONE, 10, generator(2))
    assert torch.equal(used, x)  # the batch itself stays
    assert float(flat(sent) @ flat(plain)) > 0
    again, _, _ = local_update(net, x, y, Protocol(batch_size=3), own, 10, generator(2))
    assert torch.equal(flat(sent), flat(again))
    with pytest.raises(ValueError, match="dcs2"):
        local_update(net, x, y, Protocol(batch_size=3), Dcs2(strength=0.7), 10, generator(2))


def test_dcs2_mixes_by_its_strength():
    """At 1 the sent gradient is the mean of the batch's and the concealing image's."""
    net, (x, y) = network(), images(1)
    plain, _, _ = local_update(net, x, y, Protocol(), NONE, 10, generator(2))
    cosines = []
    for strength in (0.3, 0.7, 1.0):
        own = as_client(Dcs2(strength=strength, iterations=0, kind="other"))
        sent, _, _ = local_update(net, x, y, Protocol(), own, 10, generator(2))
        cosines.append(float(F.cosine_similarity(flat(sent), flat(plain), dim=0)))
    assert cosines == sorted(cosines, reverse=True)
    proxy, label = own._proxies(x, y, generator(2))
    assert label != y
    other, _, _ = local_update(net, proxy, label, Protocol(), NONE, 10, generator(2))
    assert torch.allclose(flat(sent), (flat(plain) + flat(other)) / 2, atol=1e-5)
    assert as_client(Dcs2(strength=1.0))._proxies(x, y, generator(2))[1] == y


def test_dcs2_hides_more_than_nothing():
    """Over four seeds 4.7 dB (sd 1.0) less than undefended; a loss of 0.06 (sd 0.04) more."""
    assert attack(Dcs2(strength=1.0, iterations=40), seeds=3) < attack(seeds=3) - 1.5
    assert learn(Dcs2(strength=0.7, iterations=3), rounds=25) < learn(NONE, rounds=25) + 0.3


# statistics and distillation


def test_kd_sees_sums_over_groups_only():
    own = as_client(StatisticalFeaturesKd(strength=4, steps=2))
    held = own.statistics
    x, y = images(40)
    assert int(held.sizes.min()) >= 4
    assert int(held.sizes.sum()) == 40
    means, labels = own.train_transform(x, y, generator(), 0)
    for k in range(len(held.sizes)):
        members = torch.tensor([held.place[one.numpy().tobytes()] == k for one in x])
        assert torch.allclose(held.means[k], x[members].mean(dim=0), atol=1e-6)
        assert torch.allclose(held.labels[k], F.one_hot(y[members], 10).float().mean(dim=0))
        assert torch.equal(means[members], held.means[k].expand(int(members.sum()), *x.shape[1:]))
    assert torch.allclose(labels.sum(dim=1), torch.ones(40))
    with pytest.raises(ValueError, match="local set"):
        own.train_transform(x + 0.1, y, generator(), 0)
    with pytest.raises(ValueError, match="for_client"):
        StatisticalFeaturesKd(strength=4).train_transform(x, y, generator(), 0)


def student(defense, seed=0):
    return defense.build_model(lambda: network(seed))


def test_kd_one_image_moves_the_update_little():
    """Exchanging one image of 20 changes the update by 0.16 to 0.29 of what exchanging the only one does."""
    x, y = data().private.images()[:40], torch.zeros(40, dtype=torch.int64)
    moved = []
    for m in (1, 20):
        defense = StatisticalFeaturesKd(strength=m, steps=0, beta=0.0)
        ready = defense.prepare(data(), lambda rng: network(rng=rng), generator())
        net, sent = student(defense), []
        for last in (x[0], data().private.images()[60]):
            local = torch.cat([last[None], x[1:]])
            own = ready.for_client(local, y, generator(1))
            sent.append(flat(local_update(net, local[:1], y[:1], Protocol(), own, 10, generator(2))[0]))
        moved.append(float((sent[0] - sent[1]).norm() / sent[0].norm()))
    assert moved[1] < 0.5 * moved[0]


def test_kd_loss_is_the_mixture():
    own = as_client(StatisticalFeaturesKd(strength=4, steps=5))
    net = student(own)
    x, y = images(3)
    update, means, labels = local_update(net, x, y, Protocol(batch_size=3), own, 10, generator())
    taught = own.statistics.taught[own.statistics.groups_of(x)]
    logits = net(means)
    soft = (logits / 3).softmax(dim=1)
    loss = 0.3 * -(labels * logits.log_softmax(dim=1)).sum(dim=1).mean()
    loss = loss + 0.7 * 9 * (taught * (taught.log() - soft.log())).sum(dim=1).mean()
    by_hand = torch.autograd.grad(loss, list(net.parameters()))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(update.values(), by_hand))
    assert sum(p.numel() for p in net.parameters()) < 3 * 64 * 128 + 128 * 11 + 11 + 128
    assert torch.equal(student(own).head.weight, net.head.weight)
    assert not torch.equal(student(own, seed=1).head.weight, net.head.weight)


def test_kd_gives_the_pooled_mean_away_in_closed_form():
    """The student's first layer reads the pooled mean: who knows that needs no search, and gets it exactly."""
    where, defense = scenario(subjects=3), StatisticalFeaturesKd(strength=4, steps=2)
    made = target(where, defense)
    found = reconstruct(where, made, "skip_bottleneck", defense=defense)
    assert found.notes["route"] == "exact"
    means = F.avg_pool2d(made.truth["sent_images"][:, 0], 2)
    assert torch.allclose(F.avg_pool2d(found.data[:, 0], 2), means, atol=1e-3)


def test_kd_gives_the_mean_away_and_not_the_image():
    to_x, to_mean = zip(*(scores(StatisticalFeaturesKd(strength=m, steps=5), steps=150) for m in (1, 4)))
    assert to_x[0] == pytest.approx(to_mean[0], abs=1e-3)  # groups of one
    assert to_mean[1] > to_x[1] + 1
    assert to_x[1] < to_x[0] - 0.5
