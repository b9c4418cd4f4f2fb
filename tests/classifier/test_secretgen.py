"""SecretGen: what is damaged stays damaged, what the target says of completions names the person."""

from __future__ import annotations

import functools

import pytest
import torch
from classifier_cells import TRACK, data, generator, judges, quiet, scenario
from torch.nn import functional as F

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.errors import AccessDenied
from inversionbench.models.completion import hole
from inversionbench.priors.completion import Completion, crop
from inversionbench.priors.completion_target import CompletionTarget
from inversionbench.tracks.classifier.attacks.secretgen import Photo, SecretGen, cut_outs, pseudo_label
from inversionbench.tracks.classifier.hints import damage
from inversionbench.tracks.classifier.track import network

RECIPE = {"z_dim": 16, "width": 8, "critic_width": 8, "loss": "hinge", "rate": 2e-3, "critic_rate": 2e-3,
          "batch": 32, "l1": 1.0}
SETTING = {"base": "completion", "latents": 8, "iterations": 10}
GIVEN = scenario(protocol={"hints": 2})
EVERYBODY = scenario(subjects=12, protocol={"hints": 8})


@functools.cache
def victim():
    return TRACK.train_target(GIVEN, NONE, data(), 0, quiet)


@functools.cache
def completer():
    recipe = Completion(**RECIPE, steps=150)
    state = recipe.train(data().public, generator(), quiet)
    return recipe.load(state), state["facts"]


def granted(**more):
    known = TRACK.knowledge(GIVEN, victim().released, data().public, data().meta, completer()[0])
    known.grant(**more)
    return known


@functools.cache
def attacked(**options):
    attack = SecretGen(**{**SETTING, **options})
    asked = TRACK.oracle(GIVEN, victim().released, attack, attack.access, NONE, 0)
    labels = {"hint_labels": victim().truth["hint_labels"]} if attack.label == "true" else {}
    return attack.run(asked, granted(**labels), generator()), asked


@functools.cache
def judged(**options):
    return TRACK.evaluate(GIVEN, attacked(**options)[0], victim(), data(), judges(), 0)


def test_nothing_of_the_hole_is_released_and_the_order_says_nothing():
    released, truth = victim().released, victim().truth
    inside = hole(16, 16).bool().expand(3, -1, -1)
    photos = torch.from_numpy(data().private.x[truth["hint_rows"].numpy()])
    assert inside[0].sum() == 64
    assert (released["hints"][:, inside] == 0).all()
    assert torch.equal(released["hints"][:, ~inside], photos[:, ~inside])
    assert "hint_labels" not in released
    assert truth["hint_labels"].bincount().tolist() == [2] * GIVEN.subjects
    assert truth["hint_labels"].tolist() != sorted(truth["hint_labels"].tolist())
    shown = damage(data(), GIVEN.subjects, {"hints": 2, "hint_labels": 1}, 0)[0]
    assert torch.equal(shown["hint_labels"], truth["hint_labels"])


def test_completions_differ_in_the_hole_alone():
    """Known pixels are copied; two latents give two pictures."""
    prior, facts = completer()
    assert facts["difference_in_hole"] > 0.005
    x, mask = data().heldout.images()[:2], hole(16, 16).float()[None]
    made = prior.net(x, mask, prior.sample(2, generator()), prior.fill)
    outside = (mask == 0).expand_as(x)
    assert torch.equal(made[outside], x[outside])
    assert prior.sample(99, generator()).abs().max() <= 1


def test_diversity_in_the_targets_features_is_paid_for_and_acts():
    asked = TRACK.oracle(GIVEN, victim().released, SecretGen(), "WB", NONE, 0)
    recipe = CompletionTarget(**{**RECIPE, "diversity": 5.0}, steps=3)
    state = recipe.train(data().public, generator(), quiet, asked)
    assert asked.ledger.passes == 3 * 2 * recipe.batch
    plain = CompletionTarget(**{**RECIPE, "diversity": 0.0}, steps=3).train(data().public, generator(), quiet, asked)
    pairs = zip(state["nets"][0].values(), plain["nets"][0].values(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    with pytest.raises(ValueError, match="oracle of a target"):
        recipe.train(data().public, generator(), quiet)


def test_pseudo_labels_name_the_person():
    """Card check 1, its second half, from completions alone: 0.58 are named right (sd 0.12 over four seeds), by chance
    0.08 (sd 0.02); 0.18 is asked for."""
    attack, right = SecretGen(**SETTING | {"access": "BB-S", "latents": 24}), []
    for seed in range(2):
        made = TRACK.train_target(EVERYBODY, NONE, data(), seed, quiet)
        known = TRACK.knowledge(EVERYBODY, made.released, data().public, data().meta, completer()[0])
        asked = TRACK.oracle(EVERYBODY, made.released, attack, attack.access, NONE, 0)
        right += (attack.run(asked, known, generator()).labels == made.truth["hint_labels"]).tolist()
    assert sum(right) / len(right) > 0.18


def test_the_target_helps_beyond_the_critics():
    """Card check 2: led by the target, completions look more like the person to it than by critics alone."""
    y, net = victim().truth["hint_labels"], network(victim().released)
    told, blind = (
        attacked(label="true", iterations=25)[0], attacked(identity_weight=0.0, initial="random", iterations=25)[0],
    )  # fmt: skip
    with torch.no_grad():
        doubt = [F.cross_entropy(net(made.data), y).item() for made in (told, blind)]
    assert doubt[0] < 0.9 * doubt[1]
    done = judged(label="true", iterations=25)
    assert done.metrics["label_recovery"].mean() == 1.0
    assert done.metrics["hole_psnr"].mean() > done.facts["hole_psnr_of_mean"] - 3


def test_black_box_asks_and_never_differentiates():
    answer, asked = attacked(access="BB-S", latents=6)
    n = len(victim().truth["hint_labels"])
    assert asked.ledger.by_phase() == {"init": n * 6 * 17}
    assert asked.ledger.passes == 0
    assert len(answer.data) == n
    white, asked = attacked(latents=6)
    assert asked.ledger.passes == n * (6 * 17 + 10)
    bare = attacked(latents=6, transforms=False)[1]
    assert bare.ledger.passes == n * (6 + 10)
    assert not torch.equal(white.data, answer.data)


def test_same_seed_same_bits_and_known_pixels_stay():
    answer = attacked()[0]
    attacked.cache_clear()
    assert torch.equal(attacked()[0].data, answer.data)
    inside = hole(16, 16).bool().expand(3, -1, -1)
    known = victim().released["hints"].float() / 255
    assert torch.allclose(answer.data[:, ~inside], known[:, ~inside])


def test_the_gallery_shows_the_damaged_photographs():
    done = judged()
    first = [int((victim().truth["hint_labels"] == c).nonzero()[0, 0]) for c in range(GIVEN.subjects)]
    photos = data().private.images(victim().truth["hint_rows"][first].numpy())
    assert torch.equal(done.gallery["original"], photos)


def test_parts_and_parameters():
    images = torch.ones(2, 3, 8, 8)
    copies = cut_outs(images, 4, torch.zeros(3, 1, 1))
    assert len(copies) == 16
    assert torch.stack(copies).mean(0).allclose(torch.full((2, 3, 8, 8), 15 / 16))
    window = crop(torch.arange(256.0).view(1, 1, 16, 16), hole(16, 16)[None].float(), generator())
    assert window.shape == (1, 1, 8, 8)
    assert pseudo_label(torch.eye(3), []) == 0
    for wrong in ({"starts": 9}, {"access": "BB-S", "base": "completion_target"}):  # what the level does not grant
        with pytest.raises(ValueError):
            SecretGen(**wrong)
    assert not TRACK.accepts(scenario(), registry.describe("attack", "secretgen"))
    photo = Photo(images[:1], hole(8, 8).float()[None], completer()[0])
    assert photo.x.shape == (1, 3, 8, 8)
    attack = SecretGen(**SETTING, label="true")
    asked = TRACK.oracle(GIVEN, victim().released, attack, "WB", NONE, 0)
    with pytest.raises(AccessDenied):
        attack.run(asked, granted(), generator())
