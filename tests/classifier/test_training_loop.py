"""The one training loop: hooks act where the drawing says, strength 0 is no defense, seeds decide everything."""

from __future__ import annotations

import math

import pytest
import torch
from classifier_cells import generator
from torch import nn
from torch.nn import functional as F

from inversionbench.core.defense import Defense
from inversionbench.core.errors import UserError
from inversionbench.core.recipe import Recipe, check_recipe
from inversionbench.metrics.nll import FLOOR
from inversionbench.training.loop import augment, batches, evaluate_classifier, fit, rate_factor, steps_per_epoch

X = torch.rand(50, 2, 6, 6, generator=generator(3))
Y = (X.mean((1, 2, 3)) > X.mean()).long()
RECIPE = Recipe(epochs=3, batch=16, flip=True, shift=1, noise=0.1, blur=0.3)


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 2))


def weights(defense=None, recipe=RECIPE, seed=1, **options):
    net = fit(network, X, Y, 2, recipe, *([defense] if defense else []), rng=generator(seed), **options)
    return torch.cat([p.flatten() for p in net.parameters()])


def test_a_seed_decides_everything_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(weights(), first)
    assert not torch.equal(weights(seed=2), first)


class Noted(Defense):
    """Every training hook is an identity that notes that it was asked, and draws from its own generator."""

    def __init__(self):
        object.__setattr__(self, "notes", [])

    def training_set(self, x, y, rng):
        self.notes.append(("training_set", len(x)))
        torch.rand(3, generator=rng)
        return x, y

    def train_transform(self, x, y, rng, step):
        self.notes.append(("train_transform", step))
        torch.rand(3, generator=rng)
        return x, y

    def build_model(self, factory):
        self.notes.append(("build_model", None))
        return factory()

    def loss(self, ctx):
        self.notes.append(("loss", (ctx.step, ctx.epoch, ctx.epochs, ctx.classes, tuple(ctx.logits.shape))))
        return super().loss(ctx)

    def gradient(self, gradients, ctx):
        self.notes.append(("gradient", sorted(gradients)))
        return gradients


def test_hooks_act_in_order_and_identities_change_nothing():
    """A defense that draws but changes nothing gives the same bits: its randomness is its own."""
    noted = Noted()
    assert torch.equal(weights(noted), weights())
    assert [name for name, _ in noted.notes[:5]] == [
        "training_set", "build_model", "train_transform", "loss", "gradient"
    ]
    losses = [value for name, value in noted.notes if name == "loss"]
    assert len(losses) == 3 * steps_per_epoch(50, 16)
    assert losses[0] == (0, 0, 3, 2, (16, 2))
    assert losses[-1][:3] == (11, 2, 3)
    assert noted.notes[4][1] == ["1.bias", "1.weight", "4.bias", "4.weight"]


def test_every_training_hook_can_change_the_result():
    plain = weights()

    class Fewer(Defense):
        def training_set(self, x, y, rng):
            return x[:40], y[:40]

    class Dark(Defense):
        def train_transform(self, x, y, rng, step):
            return x * 0, F.one_hot(y, 2).float()

    class Small(Defense):
        def build_model(self, factory):
            net = factory()
            nn.init.zeros_(net[1].weight)
            return net

    class Weighted(Defense):
        def loss(self, ctx):
            return super().loss(ctx) + ctx.logits.square().mean()

    class Clipped(Defense):
        def gradient(self, gradients, ctx):
            return {name: g.sign() for name, g in gradients.items()}

    for defense in (Fewer(), Dark(), Small(), Weighted(), Clipped()):
        assert not torch.equal(weights(defense), plain), type(defense).__name__


def test_parameters_without_gradient_stay():
    class Frozen(Defense):
        def build_model(self, factory):
            net = factory()
            net[1].requires_grad_(False)
            net[1].weight.fill_(0.25)
            return net

    net = fit(network, X, Y, 2, RECIPE, Frozen(), generator())
    assert (net[1].weight == 0.25).all()
    assert net[4].weight.requires_grad


def test_clipping_bounds_the_step():
    """One step of plain gradient descent moves the weights by at most rate x clip."""
    start, end = (
        weights(recipe=Recipe(epochs=1, batch=50, optimiser="sgd", momentum=0.0, rate=rate, weight_decay=0.0,
                              schedule="constant", clip=0.01))
        for rate in (0.0, 1.0)
    )
    assert 0.005 < (end - start).norm() < 0.0101


def test_bytes_and_floats_train_alike():
    small = (X * 255).round().to(torch.uint8)
    nets = [fit(network, x, Y, 2, RECIPE, rng=generator(1)) for x in (small, small.float() / 255)]
    assert torch.equal(nets[0][1].weight, nets[1][1].weight)


def test_batches_cover_every_sample_once_in_a_new_order():
    order = generator()
    epochs = [list(batches(10, 4, epoch, order)) for epoch in range(2)]
    assert [step for step, _ in epochs[0]] == [0, 1, 2]
    assert [step for step, _ in epochs[1]] == [3, 4, 5]
    assert sorted(torch.cat([i for _, i in epochs[0]]).tolist()) == list(range(10))
    assert epochs[0][0][1].tolist() != epochs[1][0][1].tolist()
    assert steps_per_epoch(9, 4) == 2  # one sample cannot be normalised over its batch
    assert (steps_per_epoch(1, 4), steps_per_epoch(3, 1)) == (1, 3)


@pytest.mark.parametrize("schedule", ["constant", "one_cycle", "cosine", "step"])
def test_schedules_stay_below_the_highest_rate(schedule):
    factors = [rate_factor(schedule, t / 100) for t in range(100)]
    assert max(factors) == pytest.approx(1, abs=1e-3)
    assert min(factors) > 0
    if schedule != "constant":
        assert factors[-1] < 0.02


def test_augmentation_stays_an_image_of_the_same_kind():
    x = torch.rand(200, 3, 8, 8, generator=generator())
    assert torch.equal(augment(x, Recipe(), generator()), x)
    out = augment(x, Recipe(flip=True, shift=2, noise=0.3, blur=0.5), generator())
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1
    flipped = augment(x, Recipe(flip=True), generator())
    same, turned = [(flipped == v).flatten(1).all(1) for v in (x, x.flip(-1))]
    assert (same | turned).all()
    assert 60 < turned.sum() < 140
    ramp = torch.arange(8.0).expand(50, 1, 8, 8) / 8
    moved = augment(ramp, Recipe(shift=2), generator())[:, 0, 0]
    offsets = {round((row[3] * 8 - 3).item()) for row in moved}
    assert offsets == {-2, -1, 0, 1, 2}
    assert (moved.diff(dim=1) >= 0).all()  # edges repeat, nothing wraps around


def test_utility_by_hand():
    class Fixed(nn.Module):
        def forward(self, x):
            return x

    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    got = evaluate_classifier(Fixed(), p.log(), torch.tensor([0, 0, 1, 1]))
    assert got["accuracy"] == 0.75
    assert got["nll"] == pytest.approx(-(math.log(0.9 * 0.6 * 0.8 * 0.3)) / 4, rel=1e-5)
    assert got["ece"] == pytest.approx((0.1 + 0.4 + 0.2 + 0.7) / 4, rel=1e-5)  # four bins of one sample


def test_utility_is_of_the_released_scores_and_of_the_label_output():
    class Fixed(nn.Module):
        def forward(self, x):
            return x

    def flat(logits):
        return torch.tensor([[0.0, 1.0]]).expand(len(logits), 2)

    logits, y = torch.tensor([[5.0, 0.0], [5.0, 0.0]]), torch.tensor([0, 0])
    assert evaluate_classifier(Fixed(), logits, y, flat)["accuracy"] == 0
    kept = evaluate_classifier(Fixed(), logits, y, flat, keeps_labels=True)
    assert kept["accuracy"] == 1
    assert kept["nll"] == pytest.approx(-math.log(FLOOR), rel=1e-6)


def test_recipes_are_checked_with_the_nearest_name():
    assert check_recipe({"epochs": 3, "rate": 1}, "training").epochs == 3
    for wrong, words in (
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"epochs": 2.5}, "training.epochs: expected a whole number of at least 0, got 2.5"),
        ({"flip": 1}, "training.flip: expected true or false"),
        ({"rate": "fast"}, "training.rate: expected a number above 0"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"batch": 0}, "batch: expected a whole number of at least 1"),
    ):
        with pytest.raises(UserError, match=words):
            check_recipe(wrong, "training")
