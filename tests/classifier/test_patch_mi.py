"""Patch-MI: a critic that knows patches only, a generator for each class, and what its parts are worth."""

from __future__ import annotations

import functools

import pytest
import torch
from classifier_cells import data, generator, judges, knowledge, oracle, prior, target

from inversionbench.models.patch import PatchCritic
from inversionbench.tracks.classifier.attacks.patch_mi import PatchMi
from inversionbench.tracks.classifier.evaluate import refer, score
from inversionbench.tracks.classifier.track import network

SETTING = {"steps": 40, "batch": 32, "width": 8, "z_dim": 16, "patch": 4, "stride": 4, "padding": 0, "rate": 4e-3,
           "critic_width": 16, "turn": 10.0}  # fmt: skip
PEOPLE = torch.arange(3)


@functools.cache
def answer(**options):
    attack = PatchMi(**{**SETTING, **options})
    asked = oracle(attack)
    return attack.run(asked, knowledge(targets=PEOPLE), generator()), asked


def seen(**options):
    made = answer(**options)[0]
    private = refer(judges(), data().private)
    values = score(judges(), private, made.data, made.labels, network(target().released)).values
    return {name: value.mean() for name, value in values.items()}


def test_the_critic_judges_patches_in_any_order():
    """Card check 3: shuffled squares, aligned with the stride, leave the score; so do not pixels."""
    torch.manual_seed(0)
    critic = PatchCritic(12, 3, patch=4, stride=4, padding=0, norm=False).eval()
    x = data().public.images(slice(0, 5))
    squares = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)[:, :, torch.randperm(16)]
    shuffled = squares.unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(x.shape)
    assert not torch.equal(shuffled, x)
    assert torch.allclose(critic(shuffled), critic(x), atol=1e-5)
    pixels = x.flatten(2)[:, :, torch.randperm(256)].view(x.shape)
    assert not torch.allclose(critic(pixels), critic(x), atol=1e-3)


def test_every_class_gets_a_generator_that_convinces_the_target():
    made, asked = answer()
    assert made.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert asked.ledger.passes == 3 * 40 * 2 * 32
    assert {row.phase for row in asked.ledger.rows} == {"train"}
    assert made.notes["spread"] > 0
    assert seen()["target_top1"] > 0.8
    assert seen(identity_weight=0.0)["target_top1"] < 0.7


def test_views_cost_passes_and_change_the_answer():
    bare, asked = answer(views=0)
    assert asked.ledger.passes == 3 * 40 * 32
    assert not torch.equal(bare.data, answer()[0].data)


def test_a_warm_generator_starts_from_the_prior_and_leaves_it_alone():
    before = [p.clone() for p in prior().generator.parameters()]
    answer(base="dcgan", steps=2)
    assert all(torch.equal(a, b) for a, b in zip(before, prior().generator.parameters(), strict=True))
    assert all(not p.requires_grad for p in prior().generator.parameters())
    with torch.no_grad():
        z = torch.randn(4, 24, generator=generator(3))
        still = PatchMi(**{**SETTING, "base": "dcgan"}).networks(prior().generator, 24, data().shape, generator())[0]
        assert torch.equal(still(z), prior().generator(z))


def test_same_seed_same_bits_and_whole_images_run():
    first = answer(steps=3)[0].data
    answer.cache_clear()
    assert torch.equal(answer(steps=3)[0].data, first)
    assert answer(steps=3, patch=0)[0].data.shape == first.shape
    with pytest.raises(ValueError, match="smoothing"):
        PatchMi(smoothing=1.0)
