"""Defenses of the update that need the client's batch or a transform: the ingredients of their cards."""

import math

import pytest
import scipy.fft
import torch
from federated_cells import CONVNET, data, generator, psnr, reconstruct, scenario, target
from scipy.stats import spearmanr
from torch.nn import functional as F

from inversionbench.attacks.federated._labels import Head, recover_labels
from inversionbench.defenses.base import NONE, Client, Defense
from inversionbench.defenses.feature_perturbation._sensitivity import inputs_of, row_norms
from inversionbench.defenses.feature_perturbation.soteria import Soteria, mask
from inversionbench.defenses.gradient_perturbation.gradprivacy import GradPrivacy, top
from inversionbench.defenses.gradient_pruning._dct import dct, idct
from inversionbench.defenses.gradient_pruning.dgc import Dgc, select
from inversionbench.defenses.gradient_pruning.dgp import Dgp
from inversionbench.defenses.gradient_pruning.guardian import Guardian, gradient_at
from inversionbench.defenses.gradient_pruning.pfgd import Pfgd, forward
from inversionbench.models.federated import build
from inversionbench.training._federation import Federation
from inversionbench.training.federated_rounds import train


def flat(update):
    return torch.cat([t.flatten() for t in update.values()])


def cosine(a, b):
    return float(F.cosine_similarity(flat(a), flat(b), dim=0))


def network(seed=0, model=CONVNET):
    return build(model, data().shape, data().classes, generator(seed))


def client(images=1, state=None, round=0, seed=0, model=None, first=0):
    """A client of a fresh network with its first images, and the gradient it would send."""
    net = model or network(seed)
    x = data().private.images()[first : first + images]
    y = data().private.labels()[first : first + images]
    gradient = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    names = [n for n, _ in net.named_parameters()]
    parameters = {n: p.detach() for n, p in net.named_parameters()}
    ctx = Client(round, 5, 0, 4, images, parameters, generator(round), {} if state is None else state, net, x, y)
    return ctx, dict(zip(names, gradient))


def attack(defense, steps=120, subjects=4, **params):
    where = scenario(subjects=subjects)
    made = target(where, defense)
    return psnr(where, made, reconstruct(where, made, "inverting_gradients", defense=defense, steps=steps, **params))


def learn(defense, rounds=80):
    """Mean loss after some federated rounds."""
    net = network()
    x, y = data().private.images(), data().private.labels()
    train(net, x, y, 10, Federation(clients=4, batch=8, rate=0.05), rounds, defense, generator(1), generator(2))
    with torch.no_grad():
        return float(F.cross_entropy(net(x), y))


def plain(defense):
    """Strength 0 through the real path: the same payload bit for bit."""
    where = scenario(subjects=2, batch_size=2)
    off, undefended = target(where, defense), target(where)
    seen = undefended.released["updates"]["client"]
    return all(torch.equal(t, off.released["updates"]["client"][n]) for n, t in seen.items())


@pytest.mark.parametrize("defense", [Dgp(), Pfgd(), Soteria(), GradPrivacy(), Guardian()], ids=lambda d: d.id)
def test_strength_0_sends_the_undefended_update(defense):
    assert plain(defense)


@pytest.mark.parametrize("kind", [Dgp, Pfgd, Soteria, GradPrivacy, Guardian], ids=lambda k: k.id)
def test_needs_a_strength_in_range(kind):
    with pytest.raises(ValueError, match=kind.id):
        kind(strength=-1.0)


# dual gradient pruning


def test_dgp_sends_a_band_and_keeps_the_rest():
    """Sent and residual add up to the compensated gradient; the mask is of that, not of the gradient."""
    state: dict = {}
    memory: dict = {}
    for t in range(3):
        ctx, g = client(2, state, t, first=2 * t)
        v = {n: g[n] + memory.get(n, 0) for n in g}
        sent = Dgp(strength=0.8).client_update(g, ctx)
        memory = state["dgp"]
        for n, whole in v.items():
            assert torch.equal(sent[n] + memory[n], whole)
            d = whole.numel()
            if d < 20:
                continue
            ranked = whole.abs().flatten().sort(descending=True).values
            top, kept = d // 20, int(round(0.2 * d, 6))
            magnitudes = sent[n][sent[n] != 0].abs().sort(descending=True).values
            assert torch.equal(magnitudes, ranked[top : top + kept][: len(magnitudes)])
            assert len(magnitudes) == min(kept, int((ranked > 0).sum()) - top)


def test_dgp_leaves_no_small_tensor_whole():
    g = {"b": torch.tensor([3.0, -2.0, 1.0, 0.5]), "one": torch.tensor([2.0])}
    ctx, _ = client()
    sent = Dgp(strength=0.8).client_update(g, ctx)
    assert sent["b"].tolist() == [0, -2, 0, 0]
    assert sent["one"].tolist() == [2]


def test_dgp_turns_the_gradient_further_than_pruning_at_the_same_upload():
    ctx, g = client()
    top = {n: select(t, 0.2)[0] for n, t in g.items()}
    cosines = [cosine(Dgp(strength=s, top=t).client_update(g, client()[0]), g)
               for s, t in ((0.5, 0.01), (0.8, 0.05), (0.9, 0.2))]  # fmt: skip
    assert cosine(top, g) > 0.9
    assert cosine(top, g) > cosines[1] + 0.1
    assert cosines[0] > cosines[1] > cosines[2]
    assert Dgp(strength=0.8).bytes_sent(Dgp(strength=0.8).client_update(g, ctx)) < 0.35 * NONE.bytes_sent(g)


def test_dgp_hides_more_than_pruning_and_the_support_tells():
    blind, pruned = attack(Dgp(strength=0.8)), attack(Dgc(strength=0.8))
    assert blind < pruned - 1
    assert blind < attack(NONE) - 2
    knows = attack(Dgp(strength=0.5, top=0.01), match="mask")
    assert knows > attack(Dgp(strength=0.5, top=0.01)) + 1


def test_dgp_needs_its_residual():
    kept, forgotten = learn(Dgp(strength=0.8)), learn(Dgp(strength=0.8, feedback=0.0))
    assert kept < 0.5 * forgotten
    assert kept == pytest.approx(learn(NONE), abs=0.1)  # nothing is lost, only late


# pruned frequencies


def test_the_cosine_transform_is_the_library_one():
    for n in (1, 2, 7, 64):
        g = torch.randn(3, n, generator=generator(n), dtype=torch.float64)
        assert torch.allclose(dct(g), torch.tensor(scipy.fft.dct(g.numpy(), norm="ortho")), atol=1e-12)
        assert torch.allclose(idct(dct(g)), g, atol=1e-12)


def test_pfgd_keeps_energy_and_order():
    ctx, g = client()
    for t in g.values():
        assert float(forward(t).norm()) == pytest.approx(float(t.norm()), rel=1e-5)
    near = Pfgd(strength=1e-9).client_update(g, ctx)
    assert all(torch.allclose(near[n], g[n], atol=1e-6) for n in g)
    errors = [1 - cosine(Pfgd(strength=r).client_update(g, ctx), g) for r in (0.3, 0.7, 0.9, 0.99)]
    assert errors == sorted(errors)
    sent = Pfgd(strength=0.9).client_update(g, ctx)
    for t in sent.values():
        kept = math.ceil(round(0.1 * t.numel(), 6))
        f = forward(t).abs().flatten().sort(descending=True).values
        assert not len(f[kept:]) or float(f[kept]) < 1e-5 * float(f[0])
    low = Pfgd(strength=0.9, keep="low").client_update(g, ctx)
    assert cosine(low, g) < cosine(sent, g)
    upload = Pfgd(strength=0.9).bytes_sent(sent)
    assert Pfgd(strength=0.9, keep="low").bytes_sent(low) < upload < 0.25 * NONE.bytes_sent(g)


def test_pfgd_projection_explains_what_was_sent():
    """An attacker who projects the true gradient on the sent coefficients has exactly the upload."""
    ctx, g = client()
    for keep in ("magnitude", "low"):
        defense = Pfgd(strength=0.8, keep=keep)
        sent = defense.client_update(g, ctx)
        again = {n: defense.project(g[n], sent[n]) for n in g}
        assert cosine(again, sent) > 1 - 1e-5
        other = {n: defense.project(t, sent[n]) for n, t in client(first=3)[1].items()}
        assert cosine(other, sent) < 0.99


def test_pfgd_spoils_the_closed_form_of_a_linear_layer():
    """Behind a first linear layer x = dW_i / db_i; pruned rows give it away, pruned frequencies do not."""
    net = network(model={"name": "mlp", "widths": [64]})
    ctx, g = client(model=net)
    weight, bias = "body.1.weight", "body.1.bias"
    x = net.front(ctx.x).flatten()

    def ratio(update):
        i = int(update[bias].abs().argmax())
        return update[weight][i] / update[bias][i]

    def error(update):
        return float((ratio(update) - x).abs().mean())

    pruned = {n: select(t, 0.5)[0] for n, t in g.items()}
    assert error(g) < 1e-4
    i = int(pruned[bias].abs().argmax())
    alive = pruned[weight][i] != 0
    assert float((ratio(pruned) - x)[alive].abs().max()) < 1e-4  # what is left is exact
    sent = Pfgd(strength=0.5).client_update(g, ctx)
    assert float((ratio(sent) - x).abs().median()) > 1e-2  # nothing is


def test_pfgd_blurs_labels_and_images():
    """The sign of the head's bias tells the label of every pruned gradient, not of every one of pFGD."""
    right = {"pruned": 0, "pfgd": 0}
    for first in range(40):
        ctx, g = client(first=first)
        pruned = {n: select(t, 0.1)[0] for n, t in g.items()}
        for name, update in (("pruned", pruned), ("pfgd", Pfgd(strength=0.9).client_update(g, ctx))):
            head = Head(update["body.10.weight"], update["body.10.bias"], ctx.model.head.weight, None)
            right[name] += int(recover_labels(head, 1, "bias")[0]) == int(ctx.y[0])
    assert right["pruned"] == 40
    assert right["pfgd"] < 39
    assert attack(Pfgd(strength=0.9)) < attack(NONE) - 3


# Soteria


def test_soteria_scores_are_the_jacobian():
    net = network()
    _, features = inputs_of(net, "")
    x = data().private.images()[:2].double()
    net.double()
    r, exact = row_norms(features, x, 0, generator())
    by_hand = torch.autograd.functional.jacobian(lambda one: features(one[None])[0], x[1]).flatten(1).norm(dim=1)
    assert torch.allclose(exact[1], by_hand)
    _, guess = row_norms(features, x, 400, generator())
    alive = exact > 0
    assert float((guess[alive] / exact[alive] - 1).abs().mean()) < 0.06
    assert r.shape == exact.shape == (2, 128)


def test_soteria_removes_columns_of_one_tensor_only():
    defense = Soteria(strength=60)
    ctx, g = client()
    sent = defense.client_update(g, ctx)
    name = ctx.state["public"]["layer"]
    assert name == "body.10.weight"
    assert all(torch.equal(sent[n], g[n]) for n in g if n != name)
    r, norms = row_norms(inputs_of(ctx.model, "")[1], ctx.x, 0, generator())
    kept = mask(r, norms, 60)
    assert torch.equal(sent[name], g[name] * kept)
    score = (norms / (r.abs() + 0.1))[0]
    live = r[0] > 0
    assert float(score[~kept].max()) < float(score[kept & live].min())
    assert int((~kept).sum()) == pytest.approx(0.6 * int(live.sum()), abs=1)
    assert float(r[0][~kept].mean()) > float(r[0][kept].mean())  # large inputs leave


def test_soteria_more_strength_removes_more():
    removed = []
    for q in (1, 10, 60, 95):
        ctx, g = client()
        Soteria(strength=q).client_update(g, ctx)
        removed.append(ctx.state["public"]["columns_removed"])
    assert removed == sorted(removed)
    assert removed[0] < removed[-1]
    ctx, g = client()
    ctx.model = None
    with pytest.raises(ValueError, match="batch"):
        Soteria(strength=10).client_update(g, ctx)
    with pytest.raises(ValueError, match=r"body\.10"):
        Soteria(strength=10, layer="body.0").client_update(g, client()[0])


def test_soteria_fools_the_plain_attacker_only():
    plain, blind = attack(NONE), attack(Soteria(strength=60))
    knows = attack(Soteria(strength=60), match="mask")
    assert blind < plain - 2
    assert knows > blind + 2
    assert knows > plain - 1.5


# GradPrivacy


def test_gradprivacy_changes_magnitudes_of_sensitive_entries_only():
    for mode in ("flatten", "uniform"):
        ctx, g = client()
        sent = GradPrivacy(strength=0.4, mode=mode).client_update(g, ctx)
        changed = {n for n in g if not torch.equal(sent[n], g[n])}
        assert changed == {"body.10.weight", "body.6.weight", "body.6.bias"}  # the head and the last convolution
        for n in g:
            assert torch.equal(sent[n].sign(), g[n].sign())
            assert float(sent[n].norm()) == pytest.approx(float(g[n].norm()), rel=1e-5)
        r, norms = row_norms(inputs_of(ctx.model, "")[1], ctx.x, 0, generator())
        chosen = top((norms / (r.abs() + 0.1))[0], 0.4)
        ratio = sent["body.10.weight"] / g["body.10.weight"]
        rest = ratio[:, ~chosen & (r[0] > 0)]
        assert torch.allclose(rest, rest[0, 0].expand_as(rest), rtol=1e-4)  # only rescaled together
        moved = ratio[:, chosen & (r[0] > 0)]
        assert float(moved.std()) > 0.1
        if mode == "flatten":
            flat_part = sent["body.10.weight"][:, chosen & (r[0] > 0)].abs()
            assert float(flat_part.std()) < 1e-5 * float(flat_part.mean())


def test_gradprivacy_remembers_and_keeps_the_direction():
    state: dict = {}
    total, expected = 0, 0
    for t in range(4):
        ctx, g = client(2, state, t, first=2 * t)
        sent = GradPrivacy(strength=1.0).client_update(g, ctx)
        total, expected = total + flat(sent), expected + flat(g)
        assert torch.allclose(total + flat(state["gradprivacy"]), expected, atol=1e-5)
    ctx, g = client()
    cosines = [cosine(GradPrivacy(strength=s).client_update(g, client()[0]), g) for s in (0.2, 0.5, 1.0)]
    assert cosines == sorted(cosines, reverse=True)
    held = GradPrivacy(strength=1.0, least=0.95).client_update(g, ctx)
    assert cosine(held, g) == pytest.approx(0.95, abs=1e-3)
    assert all(bool((held[n] * g[n] >= 0).all()) for n in g)


def test_gradprivacy_hides_more_than_noise_of_equal_size():
    plain, blind = attack(NONE), attack(GradPrivacy(strength=1.0))
    assert blind < plain - 2
    assert blind < attack(Isotropic(strength=2 - 2 * 0.8)) - 1  # both at a cosine of 0.8 with the truth
    assert learn(GradPrivacy(strength=1.0, probes=8), rounds=30) < learn(NONE, rounds=30) + 0.3


# Guardian


class Isotropic(Defense):
    """Gaussian noise of squared norm strength |g|^2: Guardian without its optimisation."""

    hooks = frozenset({"client_update"})

    def client_update(self, update, ctx):
        g = flat(update)
        noise = torch.randn(g.shape, generator=ctx.rng)
        noise = noise * (self.strength**0.5 * g.norm() / noise.norm())
        pieces = noise.split([t.numel() for t in update.values()])
        return {n: t + p.view_as(t) for (n, t), p in zip(update.items(), pieces)}


def test_guardian_spends_its_budget_inside_the_range():
    ctx, g = client()
    errors = []
    for steps in (0, 2, 8):
        sent = Guardian(strength=0.1, steps=steps).client_update(g, ctx)
        change = flat(sent) - flat(g)
        assert float(change.square().sum() / flat(g).square().sum()) == pytest.approx(0.1, rel=1e-4)
        errors.append(ctx.state["public"]["predicted_error"])
    assert errors == sorted(errors)
    assert errors[2] > 1.5 * errors[0]
    other, h = client(first=1)
    again = Guardian(strength=0.1, steps=8).client_update(h, other)
    assert abs(cosine({"w": flat(again) - flat(h)}, {"w": change})) < 0.9  # it depends on the image


def test_guardian_beats_noise_of_the_same_norm():
    assert attack(Guardian(strength=0.1)) < attack(Isotropic(strength=0.1)) - 1.5


def test_guardian_predicts_the_error():
    """Rank correlation of the predicted and the measured error of an attacker who starts at the truth."""
    net = build({"name": "mlp", "widths": [12], "activation": "tanh"}, (1, 6, 6), 4, generator()).double()
    predicted, measured = [], []
    for i in range(10):
        x = torch.rand(1, 1, 6, 6, generator=generator(i), dtype=torch.float64)
        g = gradient_at(net, torch.tensor([i % 4]))
        jacobian = torch.autograd.functional.jacobian(lambda z, g=g: g(z), x).flatten(1)
        noise = torch.randn(len(jacobian), generator=generator(50 + i), dtype=torch.float64)
        change = (jacobian @ torch.linalg.lstsq(jacobian, noise[:, None]).solution)[:, 0]
        if i % 2:
            defense = Guardian(strength=1e-4, steps=i, coarse=1)
            change, error = defense.perturbation(g, x, g(x), generator(i))
            exact = torch.linalg.lstsq(jacobian, change[:, None]).solution
            assert float(exact.square().mean().sqrt()) == pytest.approx(error, rel=1e-3)  # |J^+ d| is known exactly
        change = change * (1e-2 * g(x).norm() / change.norm())
        exact = torch.linalg.lstsq(jacobian, change[:, None]).solution
        predicted.append(float(exact.norm()))
        seen, guess = (g(x) + change).detach(), x.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([guess], max_iter=40, tolerance_grad=1e-14, tolerance_change=1e-16)

        def closure(guess=guess, g=g, seen=seen, optimiser=optimiser):
            optimiser.zero_grad()
            loss = (g(guess) - seen).square().sum() * 1e4
            loss.backward()
            return loss

        optimiser.step(closure)
        measured.append(float((guess.detach() - x).norm()))
    assert spearmanr(predicted, measured).statistic > 0.6


def test_guardian_keeps_training():
    assert learn(Guardian(strength=0.1, steps=1), rounds=20) < learn(NONE, rounds=20) + 0.2
