"""Entities from a text classifier: what is fed where, what each row may ask, and that the target's word is heard."""

from __future__ import annotations

import io
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.core.scenario import Scenario
from inversionbench.data.entity_sentences import EntitySentences
from inversionbench.defenses.differential_privacy._per_sample import _one_by_one, per_sample
from inversionbench.models.encoder import Encoder, advance
from inversionbench.models.text import END, PAD, START, UNKNOWN
from inversionbench.plan.params import Entry
from inversionbench.tracks import get_track
from inversionbench.tracks.text_classifier.attacks._generate import best, sample
from inversionbench.tracks.text_classifier.target import cut, load, permutation, sentences

sys.path.append(str(Path(__file__).parents[1] / "data"))
from embedded_build import build

TRACK = get_track("text_classifier")
HERE = Scenario("cell", "text_classifier", "entity_sentences", {"name": "encoder", "width": 32}, {"epochs": 4}, {}, 4)


@cache
def data():
    """Half of the slots of a kind hold its secret: a stronger leak than the table's, for a smaller target."""
    return build(EntitySentences(private=2000, public=1500, heldout=300, share=0.5), 3)


@cache
def prior():
    recipe = registry.get("prior", "sentence_models")(width=48, epochs=6, classifier_epochs=3)
    return recipe.load(recipe.train(data().public, torch.Generator().manual_seed(0), None))


@cache
def target(defense=NONE, seed=0):
    return TRACK.train_target(HERE, defense, data(), seed, None)


def reconstruct(name, defense=NONE, seed=0, **params):
    """(reconstruction, oracle, attack), the target through a file."""
    method = registry.get("attack", name)(**{"calls": 1000, "kept": 6, **params} if name != "unsteered" else params)
    buffer = io.BytesIO()
    torch.save(target(defense, seed).released, buffer)
    buffer.seek(0)
    released = torch.load(buffer, weights_only=True)
    oracle = TRACK.oracle(HERE, released, method, method.level, defense, seed)
    knowledge = TRACK.knowledge(HERE, released, data().public, data().meta, prior())
    return method.run(oracle, knowledge, torch.Generator().manual_seed(seed)), oracle, method


def measured(name, **params):
    return TRACK.evaluate(HERE, reconstruct(name, **params)[0], target(), data(), None, 0)


def mean(found, metric):
    return float(found.metrics[metric].mean())


def test_soft_words_go_the_way_of_real_ones():
    torch.manual_seed(0)
    net = Encoder({"width": 16, "blocks": 2, "heads": 2, "length": 8}, 20, 3).eval()
    x = torch.tensor([[START, 5, 9, 7, END, PAD, PAD, PAD], [START, 6, PAD, PAD, PAD, PAD, PAD, PAD]])
    soft = torch.nn.functional.one_hot(x, 20).float() @ net.embeddings()
    assert torch.allclose(net(x), net.soft(soft, x != PAD).logits, atol=1e-6)
    assert torch.allclose(net(x), net(x[:, :6]), atol=1e-6)  # padding says nothing
    together, alone = per_sample(net, x, torch.tensor([0, 2])), _one_by_one(net, x, torch.tensor([0, 2]))
    assert all(torch.allclose(together[name], g, atol=1e-6) for name, g in alone.items())


def test_the_cache_gives_what_the_whole_sentence_gives():
    model, x = prior().language, sample(prior().language, 5, 0, torch.Generator().manual_seed(0))
    whole, cache = model(x), []
    for place in range(x.shape[1]):
        logits, cache = advance(model, x[:, place], cache)
        assert torch.allclose(logits, whole[:, :, place], atol=1e-4)


def test_sentences_end_and_are_cut():
    x = sample(prior().language, 50, 5, torch.Generator().manual_seed(0))
    assert (x[:, 0] == START).all()
    assert not (x[:, 1:] == START).any()
    assert not (x == UNKNOWN).any()
    after_end = (x == END).cumsum(1).bool() & (x != END)
    assert (x[after_end] == PAD).all()
    whole, short = x[x[:, -1] == PAD], cut(x[x[:, -1] == PAD], torch.Generator().manual_seed(0))
    ended = (short != whole).any(1)
    assert 0.2 < ended.float().mean() < 0.7
    assert ((short != PAD).sum(1) >= 2).all()


def test_every_target_has_secrets_of_its_own():
    words = target().released["words"]
    one, two = (permutation(data().meta["entities"], words, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert not torch.equal(one, two)
    assert torch.equal(one.sort().values, torch.arange(len(words)))
    for members in target().truth["types"].values():
        assert set(one[members].tolist()) == set(members)
    x, y = sentences(data().heldout, words, 12, target().truth["renamed"])
    for kind, secrets in target().truth["secrets"].items():
        counts = x[y == 2].flatten().bincount(minlength=len(words))[target().truth["types"][kind]]
        assert target().truth["types"][kind][int(counts.argmax())] == secrets[2]
    assert not {"renamed", "secrets", "types"} & set(target().released)
    assert target().utility["accuracy"] > 0.7  # .86; a quarter by chance


def test_rejection_and_steering_find_what_controls_do_not():
    """Mean lift in ranks, of 12 secrets: rejection 12, steering 8; unsteered, untrained and public 0 (the mean of 12
    ranks by chance has a standard error of 2.5); threshold 5 above the language model. Rejection is fluent."""
    chosen, steered, plain = (measured(n, **p) for n, p in (
        ("sentence_rejection", {}), ("text_revealer", {}), ("unsteered", {"kept": 6})))
    rank = {name: mean(found, "entity_rank") for name, found in (("chosen", chosen), ("plain", plain))}
    assert rank["chosen"] + 5 < rank["plain"]
    assert mean(steered, "entity_rank") + 5 < mean(measured("text_revealer", guide="untrained"), "entity_rank")
    assert mean(chosen, "grammatical") > mean(steered, "grammatical")
    ceiling = chosen.controls["private_sentences"]["entity_rank"].mean()
    assert ceiling < 4 < chosen.controls["public_sentences"]["entity_rank"].mean()
    lift = chosen.metrics["entity_lift"] + chosen.metrics["entity_rank"]
    assert np.array_equal(lift, steered.metrics["entity_lift"] + steered.metrics["entity_rank"])  # one language model
    assert set(chosen.metrics) == set(TRACK.metrics)
    assert set(chosen.controls) == set(TRACK.controls)


def test_calls_are_equal_and_controls_ask_nothing():
    assert 800 < reconstruct("text_revealer")[1].ledger.passes <= 1000
    assert reconstruct("sentence_rejection")[1].ledger.queries == 1000
    for name, params in (("text_revealer", {"guide": "untrained"}), ("text_revealer", {"guide": "public"}),
                         ("unsteered", {"kept": 6}), ("unsteered", {"kept": 6, "guide": "public", "draws": 60})):
        answer, oracle, _ = reconstruct(name, **params)
        assert (oracle.ledger.passes, oracle.ledger.queries) == (0, 0)
        assert answer.data.shape == (24, 12)
        assert answer.problem() == ""
        assert answer.labels.tolist() == sorted(list(range(4)) * 6)
    with pytest.raises(UserError, match="calls: 100 make 0 sentences"):
        reconstruct("text_revealer", calls=100)


def test_each_level_refuses_the_other():
    _, oracle, _ = reconstruct("sentence_rejection", calls=50)
    with pytest.raises(AccessDenied):
        oracle.module()
    _, oracle, _ = reconstruct("text_revealer")
    with pytest.raises(AccessDenied):
        oracle.scores(torch.zeros(1, 12, dtype=torch.int64))


def test_the_best_of_a_pool_are_handed_over():
    x, fit = torch.arange(6)[:, None], torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.5, 0.5], [0, 1], [1, 0]])
    assert best(x, fit, 2)[:, :, 0].tolist() == [[5, 2], [4, 0]]
    assert best(torch.stack([x, x]), fit.T, 2)[:, :, 0].tolist() == [[5, 2], [4, 0]]


@pytest.mark.parametrize("name", ["dp_sgd", "label_smoothing", "drop_entities"])
def test_strength_0_is_no_defense(name):
    few = Scenario("cell", "text_classifier", "entity_sentences", {"name": "encoder", "width": 8}, {"epochs": 1}, {}, 4)
    assert Entry(name, "defense", name).suits(TRACK, few)
    plain, zero, some = (TRACK.train_target(few, d, data(), 0, None).released["state"] for d in (
        NONE, registry.get("defense", name)(strength=0.0), registry.get("defense", name)(strength=1.0)))
    assert all(torch.equal(t, zero[n]) for n, t in plain.items())
    assert not all(torch.equal(t, some[n]) for n, t in plain.items())


def test_dropped_entities_are_read_alike():
    dropped = registry.get("defense", "drop_entities")(strength=1.0)
    done = target(dropped)
    net, kind = load(done.released), done.truth["types"]["name"]  # loads without knowing which
    x = torch.tensor([[START, word, 8, END] for word in kind[:4]])
    assert torch.equal(net(x)[0], net(x)[3])
    assert done.utility["accuracy"] < target().utility["accuracy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"model": {"name": "encodr"}}, "did you mean 'encoder'"), ({"model": {"name": "encoder", "heads": 5}}, "divisor"),
     ({"training": {"epoch": 1}}, "did you mean 'epochs'"), ({"protocol": {"ask": "x"}}, "no option 'ask'")],
)  # fmt: skip
def test_bad_scenarios(change, message):
    with pytest.raises(UserError, match=message):
        TRACK.check(Scenario("s", "text_classifier", "d", **{"model": {"name": "encoder"}, **change}))
