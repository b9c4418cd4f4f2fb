"""Defenses that change what the gradient is taken at: the ingredients of their cards."""

import pytest
import torch
from federated_cells import CONVNET, data, evaluate, generator, psnr, reconstruct, scenario, target
from torch.nn import functional as F

from inversionbench.attacks.federated._simulate import simulator
from inversionbench.defenses.base import NONE
from inversionbench.defenses.feature_perturbation import _operations as operations
from inversionbench.defenses.feature_perturbation._policy_search import accuracy_score, privacy_score
from inversionbench.defenses.feature_perturbation.ats import Ats, library, read, transform
from inversionbench.defenses.feature_perturbation.image_augmentation import ImageAugmentation
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


@pytest.mark.parametrize("kind", [Vrm, Ats, ImageAugmentation], ids=lambda k: k.id)
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
