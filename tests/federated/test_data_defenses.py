"""Defenses that change what the gradient is taken at: the ingredients of their cards."""

import pytest
import torch
from federated_cells import CONVNET, data, evaluate, generator, psnr, reconstruct, scenario, target
from torch.nn import functional as F

from inversionbench.attacks.federated._simulate import simulator
from inversionbench.defenses.base import NONE
from inversionbench.defenses.feature_perturbation import _operations as operations
from inversionbench.defenses.feature_perturbation._policy_search import accuracy_score, privacy_score
from inversionbench.defenses.feature_perturbation._search import fit
from inversionbench.defenses.feature_perturbation.ats import Ats, library, read, transform
from inversionbench.defenses.feature_perturbation.dcs2 import Dcs2, project
from inversionbench.defenses.feature_perturbation.image_augmentation import ImageAugmentation
from inversionbench.defenses.feature_perturbation.statistical_features_kd import StatisticalFeaturesKd
from inversionbench.defenses.feature_perturbation.vrm import Vrm, rectangle
from inversionbench.models.federated import build
from inversionbench.training._federation import Federation
from inversionbench.training._protocol import Protocol
from inversionbench.training.client import local_update
from inversionbench.training.federated_rounds import train


def network(seed=0, rng=None):
    return build(CONVNET, data().shape, data().classes, rng or generator(seed))


def images(n=4):
    return data().private.images()[:n], data().private.labels()[:n]


def as_client(defense, n=40, seed=0):
    """The defense as a client with the first private images runs it."""
    ready = defense.prepare(data(), lambda rng: network(rng=rng), generator(seed))
    return ready.for_client(*images(n), generator(seed + 1))


def scores(defense, steps=120, subjects=4, **protocol):
    """(PSNR to the original, PSNR to what the gradient saw)."""
    where = scenario(subjects=subjects, **protocol)
    made = target(where, defense)
    answer = evaluate(where, made, reconstruct(where, made, "inverting_gradients", defense=defense, steps=steps))
    return float(answer.metrics["psnr"].mean()), answer.facts["to_transformed"]["psnr"]


def undefended(steps=120, subjects=4):
    where = scenario(subjects=subjects)
    made = target(where)
    return psnr(where, made, reconstruct(where, made, "inverting_gradients", steps=steps))


def learn(defense, rounds=60):
    """Mean loss on unchanged images after some federated rounds."""
    net = network()
    ready = defense.prepare(data(), lambda rng: network(rng=rng), generator())
    x, y = data().private.images(), data().private.labels()
    train(net, x, y, 10, Federation(clients=4, batch=8, rate=0.05), rounds, ready, generator(1), generator(2))
    with torch.no_grad():
        return float(F.cross_entropy(net(x), y))


@pytest.mark.parametrize("kind", [Vrm, Ats, ImageAugmentation, Dcs2, StatisticalFeaturesKd], ids=lambda k: k.id)
def test_strength_0_is_the_undefended_round(kind):
    where = scenario(subjects=2, batch_size=2)
    off, plain = target(where, kind()), target(where)
    seen = plain.released["updates"]["client"]
    assert all(torch.equal(t, off.released["updates"]["client"][n]) for n, t in seen.items())
    assert kind().prepare(data(), network, generator()) is not None
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
    assert torch.allclose(kept, soft[torch.arange(4), y].clamp_min(0.4), atol=0.15)
    assert float(rectangle((10, 10), 0.49, generator()).sum()) == 49
    noisy, same = Vrm(strength=0.2, member="gauss").train_transform(x, y, generator(), 0)
    assert torch.equal(same, y)
    assert 0.1 < float((noisy - x).std()) < 0.2


def test_vrm_hides_the_image_and_not_the_mix():
    plain = undefended()
    to_x, to_mix = zip(*(scores(Vrm(strength=s, a=0.0)) for s in (0.1, 0.3, 0.5)))
    assert to_x[0] > to_x[1] > to_x[2]
    assert to_x[2] < plain - 2
    assert to_mix[2] > to_x[2] + 2
    assert learn(Vrm(strength=0.3)) < learn(NONE, rounds=1) - 0.5


# operations


def test_operations_stay_in_the_box_and_can_be_undone():
    x = images(6)[0]
    amounts = {"solarize": 0.5, "posterize": 4.0, "rotate": 20.0}
    for name in operations.OPERATIONS:
        out = operations.apply(x, name, amounts.get(name, 0.2))
        assert out.shape == x.shape
        assert float(out.min()) >= 0
        assert float(out.max()) <= 1
        if name in operations.GEOMETRIC:
            back = operations.apply(out, name, -amounts.get(name, 0.2))
            assert float((back - x).abs().mean()) < 0.5 * float((out - x).abs().mean())
    assert torch.equal(operations.apply(x, "brightness", 1.0), x)
    moved = operations.apply(x, "translate_x", 0.25)
    assert torch.allclose(moved[..., :12], x[..., 4:], atol=1e-5)
    turned = operations.apply(x, "rotate", 90.0)
    assert any(torch.allclose(turned, x.rot90(k, (2, 3)), atol=1e-4) for k in (-1, 1))
    flat = operations.apply(x, "equalize")
    spread = torch.histc(flat[0, 0], 4, 0, 1)
    assert float(spread.min()) > 0.15 * 256
    with pytest.raises(ValueError, match="operation"):
        operations.apply(x, "swirl")


# image augmentation


def test_augmentation_takes_the_worst_operation_for_the_attacker():
    """The choice is the argmax of the measured errors among operations that keep the accuracy."""
    defense = ImageAugmentation(strength=9, images=1, steps=20, fit=15, operations="rotate,translate_x,brightness")
    factory = lambda rng: network(rng=rng)
    errors, rates = defense.grid(data(), factory, generator())
    chosen = defense.prepare(data(), factory, generator()).policy.split(",")
    names = defense.operations.split(",")
    fair = [n for n, a in zip(names, rates[1:]) if a >= rates[0] - 0.02] or [names[int(rates[1:].argmax())]]
    assert errors.shape == (10, 3)
    for c, name in enumerate(chosen):
        assert name == max(fair, key=lambda n: errors[c, names.index(n)])
    lenient = ImageAugmentation(**{**defense.__dict__, "tolerance": 1.0}).prepare(data(), factory, generator())
    assert lenient.policy.split(",") == [names[int(i)] for i in errors.argmax(dim=1)]


def test_augmentation_goes_by_class_and_magnitude():
    x, y = images(10)
    policy = ",".join(["translate_x"] * 5 + ["identity"] * 5)
    out, labels = ImageAugmentation(strength=5, policy=policy).train_transform(x, y, generator(), 0)
    changed = (out != x).flatten(1).any(dim=1)
    assert torch.equal(changed, y < 5)
    assert torch.equal(labels, y)
    with pytest.raises(ValueError, match="prepare"):
        ImageAugmentation(strength=5).train_transform(x, y, generator(), 0)


def test_augmentation_hides_the_original_and_not_the_transformed():
    policy = ",".join(["translate_x", "rotate"] * 5)
    one, nine = (scores(ImageAugmentation(strength=m, policy=policy)) for m in (1, 9))
    assert nine[0] < one[0] - 1
    assert nine[1] > nine[0] + 1  # the gradient still gives the transformed image away
    assert ImageAugmentation(strength=9, policy=policy).public_knowledge()["amounts"]["rotate"] == pytest.approx(27)


# automatic transformation search


def test_ats_library_and_policies():
    assert len(set(library())) == 50
    x, y = images(6)
    fixed = Ats(strength=2, policy="19-46+3")
    out, _ = fixed.train_transform(x, y, generator(), 0)
    first = [transform(one[None], [19, 46], generator(s)) for one in x for s in (0, 1, 2, 3)]
    second = [transform(one[None], [3], generator(s)) for one in x for s in (0, 1, 2, 3)]
    for i in range(6):
        options = first[4 * i : 4 * i + 4] + second[4 * i : 4 * i + 4]
        assert any(torch.equal(out[i], o[0]) for o in options)  # one policy, whole, always
    assert not fixed.public_knowledge()["searched"]
    with pytest.raises(ValueError, match="prepare"):
        Ats(strength=2).train_transform(x, y, generator(), 0)


def test_ats_scores_by_hand():
    x, y = images(3)
    net = network()
    client = simulator(net, Protocol())
    score = privacy_score(client, x, y, net, 4, generator())
    assert score.shape == (3,)
    assert bool((score < 1).all())
    noise = -2 + 4 * torch.rand(x.shape, generator=generator())

    def gradient(z):
        return torch.autograd.grad(F.cross_entropy(net.body(z[None]), y[:1]), list(net.parameters()))

    last = gradient(net.front(x[0]))
    curve = []
    for j in range(5):
        now = gradient((1 - j / 4) * noise[0] + j / 4 * net.front(x[0]))
        layers = [float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in zip(now, last)]
        curve.append(sum(layers) / len(layers))
    area = (sum(curve) - (curve[0] + curve[-1]) / 2) / 4
    assert float(score[0]) == pytest.approx(area, abs=1e-4)
    assert accuracy_score(net, x.repeat(4, 1, 1, 1)) < accuracy_score(net, data().private.images()[:12])  # doubles


def test_ats_takes_the_best_of_the_trainable_candidates():
    found = Ats(strength=3, candidates=16, images=6, batch=24, fit=30, hybrid=2)
    ready = found.prepare(data(), lambda rng: network(rng=rng), generator(0))
    assert ready.searched
    assert len(ready.policy.split("+")) == 2
    assert ready.policy == found.prepare(data(), lambda rng: network(rng=rng), generator(0)).policy
    hidden, shown = scores(ready)
    assert hidden < undefended() - 1
    assert shown > undefended() - 3  # untrained: the transformed image leaks as before


def test_more_operations_change_more():
    x = images(8)[0]
    changes = []
    for k in (1, 2, 3):
        draws = torch.randint(0, 50, (30, k), generator=generator(2)).tolist()
        changes.append(float(torch.stack([(transform(x, p, generator(4)) - x).abs().mean() for p in draws]).mean()))
    assert changes == sorted(changes)


def test_ats_keeps_policies_that_train():
    """The chosen ones are the lowest in privacy rank among those above the quantile of the accuracy score."""
    found = Ats(strength=2, candidates=10, images=4, batch=16, fit=5, hybrid=10)
    ranked = read(found.prepare(data(), lambda rng: network(rng=rng), generator(0)).policy)
    fresh = network(seed=1)
    values = [accuracy_score(fresh, transform(images(40)[0][-16:], p, generator(4))) for p in ranked]
    assert sum(values[:6]) / 6 > sum(values[-3:]) / 3  # the dropped ones stand last


# concealing samples


def flat(parts):
    return torch.cat([t.flatten() for t in (parts.values() if isinstance(parts, dict) else parts)])


def test_dcs2_crafts_what_it_promises():
    """The gradient comes nearer, the picture moves away, the output stays."""
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
    assert end[0] > start[0] + 0.05
    assert end[1] > 1.5 * start[1]
    assert end[2] < 0.1 < start[2]
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
    where = scenario(subjects=4)
    made = target(where, Dcs2(strength=0.7, iterations=40))
    answer = reconstruct(where, made, "inverting_gradients", steps=120)
    assert psnr(where, made, answer) < undefended() - 2
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
    """Exchanging one image changes a group's gradient by about 1 / m."""
    x, y = data().private.images()[:40], torch.zeros(40, dtype=torch.int64)
    moved = []
    for m in (1, 5, 20):
        defense = StatisticalFeaturesKd(strength=m, steps=0, beta=0.0)
        ready = defense.prepare(data(), lambda rng: network(rng=rng), generator())
        net, sent = student(defense), []
        for last in (x[0], data().private.images()[60]):
            local = torch.cat([last[None], x[1:]])
            own = ready.for_client(local, y, generator(1))
            sent.append(flat(local_update(net, local[:1], y[:1], Protocol(), own, 10, generator(2))[0]))
        moved.append(float((sent[0] - sent[1]).norm() / sent[0].norm()))
    assert moved[1] < 0.7 * moved[0]
    assert moved[2] < 0.4 * moved[1]


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


def test_kd_gives_the_mean_away_and_not_the_image():
    to_x, to_mean = zip(*(scores(StatisticalFeaturesKd(strength=m, steps=5), steps=150) for m in (1, 4)))
    assert to_x[0] == pytest.approx(to_mean[0], abs=1e-3)  # groups of one
    assert to_mean[1] > to_x[1] + 1
    assert to_x[1] < to_x[0] - 0.5
