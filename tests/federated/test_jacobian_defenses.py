"""Soteria, GradPrivacy and Guardian, which look at how the gradient or the features depend on the image."""

import pytest
import torch
from defended_cells import attack, client, cosine, flat, learn, network
from federated_cells import data, generator
from scipy.stats import spearmanr

from inversionbench.core.defense import NONE, Defense
from inversionbench.defenses.feature_perturbation._sensitivity import inputs_of, row_norms
from inversionbench.defenses.feature_perturbation.soteria import Soteria, mask
from inversionbench.defenses.gradient_perturbation.gradprivacy import GradPrivacy, top
from inversionbench.defenses.gradient_pruning.dgc import select
from inversionbench.defenses.gradient_pruning.guardian import Guardian, gradient_at
from inversionbench.models.federated import build

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
    """Over four seeds 5.3 dB (sd 0.8) less than undefended, 5.2 (sd 0.8) less than where the smallest entries go,
    and 5.1 (sd 0.9) more by who knows the mask, 0.2 (sd 0.2) below undefended; a loss of 0.06 (sd 0.02) more."""
    plain, blind = attack(), attack(Soteria(strength=60))
    knows = attack(Soteria(strength=60), match="mask")
    assert blind < plain - 2
    assert knows > blind + 2
    assert knows > plain - 1.5
    assert blind < attack(Magnitude(strength=60)) - 2
    assert learn(Soteria(strength=60, probes=4), 30) < learn(NONE, 30) + 0.2


class Magnitude(Defense):
    """Of Soteria's layer the smallest entries set to 0, as many: without the Jacobian."""

    hooks = frozenset({"client_update"})

    def client_update(self, update, ctx):
        name = "body.10.weight"
        return update | {name: select(update[name], 1 - self.strength / 100)[0]}


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
    """Over four seeds 5.4 dB (sd 0.5) less than undefended, 3.9 (sd 0.9) less than noise; a loss of 0.05 more."""
    plain, blind = attack(), attack(GradPrivacy(strength=1.0))
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
    """The predicted error grows 3.5 times (sd 0.2 over four seeds) in eight steps, without one 1; 2 are asked for.
    Changes of two images have a cosine of 0.02 (sd 0.02)."""
    gains, changes = [], []
    for i in range(4):
        ctx, g = client(first=i)
        errors = []
        for steps in (0, 2, 8):
            sent = Guardian(strength=0.1, steps=steps).client_update(g, ctx)
            change = flat(sent) - flat(g)
            assert float(change.square().sum() / flat(g).square().sum()) == pytest.approx(0.1, rel=1e-4)
            errors.append(ctx.state["public"]["predicted_error"])
        assert errors == sorted(errors)
        gains.append(errors[2] / errors[0])
        changes.append({"w": change})
    assert sum(gains) / 4 > 2
    assert abs(cosine(*changes[:2])) < 0.5  # it depends on the image


def test_guardian_beats_noise_of_the_same_norm():
    """By 4.3 dB (sd 0.5 over four seeds); two noises by 0. 1.5 are asked for."""
    assert attack(Guardian(strength=0.1)) < attack(Isotropic(strength=0.1)) - 1.5


def test_guardian_predicts_the_error():
    """Rank correlation of the predicted and the measured error of an attacker who starts at the truth: 0.99 to 1.00
    over four seeds; of ten errors in any order 0 (sd 0.33). 0.9 is asked for: four deviations from both, in
    arctanh."""
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
    assert spearmanr(predicted, measured).statistic > 0.9


def test_guardian_keeps_training():
    """The loss differs by 0.0003 (sd 0.002 over four seeds) after 20 rounds; 0.2 is allowed."""
    assert learn(Guardian(strength=0.1, steps=1), rounds=20) < learn(NONE, rounds=20) + 0.2
