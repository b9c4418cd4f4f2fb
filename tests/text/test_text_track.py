"""The text track: words, the decoder, what clients send, and how sentences are judged."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from text_cells import NONE, TRACK, Noise, attack, data, evaluated, mean, reconstruct, scenario, target, through_a_file

from inversionbench.core.attack import Reconstruction
from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.metrics.text_recovery import bag_overlap
from inversionbench.models import text
from inversionbench.models.text import END, IGNORED, PAD, START, UNKNOWN, Decoder, Tokenizer
from inversionbench.tracks.text.clients import batches_of, distinct
from inversionbench.tracks.text.evaluate import _overlaps, evaluate


def test_no_torch_for_checking():
    code = (
        "import sys\nfrom inversionbench.core.scenario import Scenario\n"
        "from inversionbench.tracks import get_track\n"
        "get_track('text').check(Scenario('s', 'text', 'clinical_notes', {'name': 'decoder'}, {'epochs': 1},"
        " {'batch_size': [1, 8]}))\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "decodr"}}, r"model\.name: unknown model 'decodr': did you mean 'decoder'"),
        ({"model": {"widht": 64}}, "did you mean 'width'"),
        ({"model": {"blocks": 1}}, r"model\.blocks: expected a whole number of at least 2"),
        ({"model": {"width": 30}}, r"model\.heads: expected a divisor of the width 30"),
        ({"model": {"task": "classes"}}, "did you mean 'class'"),
        ({"precision": "float16"}, r"protocol\.precision: got 'float16': did you mean 'float"),
        ({"trained": "everything"}, r"protocol\.trained"),
        ({"labels": "known"}, "unknown setting 'labels'"),
        ({"training": {"epoch": 1}}, "unknown setting 'epoch': did you mean 'epochs'"),
        ({"sizes": (4, 4)}, "different numbers"),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(UserError, match=message):
        TRACK.check(scenario(**change))


def test_words():
    words = text.learn_words(["the cat sat .", "the cat", "a dog"], 7)
    assert words.words == ("<pad>", "<start>", "<end>", "<unknown>", "cat", "the", ".")
    x = words.encode(["The cat, sat", "the cat the cat the"], 5)
    assert x.tolist() == [[START, 5, 4, UNKNOWN, END], [START, 5, 4, 5, END]]
    assert words.encode(["cat"], 5).tolist() == [[START, 4, END, PAD, PAD]]
    assert words.decode(x[0]) == "the cat <unknown>"
    assert text.targets(torch.tensor([[START, 4, END, PAD]])).tolist() == [[4, END, IGNORED, IGNORED]]


def model(task="language", blocks=2):
    torch.manual_seed(0)
    return Decoder({"width": 16, "heads": 2, "blocks": blocks, "length": 8, "task": task}, 20, 3)


@pytest.mark.parametrize("task", ["language", "class"])
def test_what_stands_to_the_right_reaches_nothing(task):
    net, x = model(task), torch.tensor([[START, 5, 6, END, PAD, PAD]])
    longer = torch.cat([x, torch.full((1, 2), PAD)], 1)
    a, b = net(x), net(longer)
    assert a.shape == ((1, 20, 6) if task == "language" else (1, 3))
    assert torch.allclose(a, b[..., :6] if task == "language" else b, atol=1e-6)
    if task == "language":
        other = x.clone()
        other[0, 3] = 9
        assert torch.allclose(net(x)[..., :3], net(other)[..., :3])
        assert not torch.allclose(net(x)[..., 3], net(other)[..., 3])


def test_held_parameters_are_buffers_and_compute_the_same():
    net, x = model(), torch.tensor([[START, 5, 6, END]])
    before = net(x)
    state = set(net.state_dict())
    text.hold(net, lambda name: ".qkv." in name)
    assert torch.equal(net(x), before)
    assert {n for n, _ in net.named_parameters()} == {f"blocks.{i}.qkv.{k}" for i in (0, 1) for k in ("weight", "bias")}
    assert set(net.state_dict()) == state


def test_attention_is_the_textbook_one():
    block = model().blocks[0].double()
    h = torch.randn(1, 3, 16, dtype=torch.float64)
    q, k, v = block.qkv(block.norm1(h))[0].chunk(3, -1)
    seen = torch.zeros(3, 16, dtype=torch.float64)
    for head in (slice(0, 8), slice(8, 16)):
        for p in range(3):
            share = torch.softmax(torch.stack([q[p, head] @ k[j, head] / 8**0.5 for j in range(p + 1)]), 0)
            seen[p, head] = sum(s * v[j, head] for j, s in enumerate(share))
    assert torch.allclose(block(h)[0], block.rest(h[0], seen), atol=1e-12)


def test_what_is_counted():
    a, b = [START, 4, 5, END], [START, 4, 6, END]
    assert distinct([a, b], "language") == {"tokens": 6, "pairs": 4, "prefixes": 4}
    assert distinct([a, b], "class") == {"tokens": 8, "pairs": 5, "prefixes": 6}
    assert distinct([a, a], "language")["prefixes"] == 3


def test_what_is_released_does_not_hold_the_sentences():
    goal = target(scenario((1, 2), 8))
    assert set(goal.released) == {"state", "words", "classes", "updates", "defense"}
    assert set(goal.released["updates"]) == {"client"}
    tokens = goal.truth["tokens"]
    assert tokens.shape == (16, 2, 18)
    assert (tokens[:8, 1] == PAD).all()
    assert (tokens[8:, :, 0] == START).all()
    real = [tuple(s) for client in text.sentences(tokens, batches_of(scenario((1, 2), 8)).sizes) for s in client]
    assert len(set(real)) == len(real) == 24
    private = Tokenizer(tuple(goal.released["words"])).encode(map(str, data().private.x), 18)
    assert set(real) <= {tuple(s) for s in text.sentences(private[None], [len(private)])[0]}


def test_strength_0_is_no_defense_and_noise_is_seen():
    where = scenario(2, 2)
    plain, zero, some = (target(where, defense=d) for d in (NONE, Noise(0.0), Noise(1.0)))
    update = plain.released["updates"]["client"]
    assert all(torch.equal(t, zero.released["updates"]["client"][n]) for n, t in update.items())
    assert plain.utility["cos_sent_true"] == pytest.approx(1.0)
    assert some.utility["cos_sent_true"] == pytest.approx(0.5**0.5, abs=0.02)
    assert {"accuracy", "nll", "bytes_up", "bytes_dense"} <= set(plain.utility)


def test_a_server_gets_no_more():
    oracle = reconstruct(attack(), scenario(2, 2))[1]
    for call in ("scores", "labels", "module", "logits"):
        with pytest.raises(AccessDenied):
            getattr(oracle, call)(torch.zeros(1))
    with pytest.raises(AccessDenied, match="not 'decoy'"):
        oracle.observe_update("decoy")
    kept = {n: t.clone() for n, t in oracle.global_model().state_dict().items()}
    oracle.global_model().token.weight.add_(1)
    assert all(torch.equal(t, kept[n]) for n, t in oracle.global_model().state_dict().items())


def test_targets_come_back_from_a_file():
    goal = target(scenario(2, 2))
    again = through_a_file(goal.released)
    assert again["words"] == goal.released["words"]
    assert torch.equal(through_a_file(goal.truth)["tokens"], goal.truth["tokens"])


WORDS = Tokenizer((*text.SPECIAL, *"abcdefgh"))


def judged(guess, true, sizes=(2,), subjects=2, length=8):
    def padded(clients):
        return torch.tensor([[s + [PAD] * (length - len(s)) for s in client] for client in clients])

    where = scenario(sizes, subjects)
    answer = Reconstruction(padded(guess), torch.zeros(1))
    options = {"length": length, "width": 32, "task": "language"}
    return evaluate(answer, padded(true), WORDS, ["a b c", "d e"], batches_of(where), options, 0)


def test_by_hand():
    true = [[[START, 4, 5, 6, END], [START, 7, 8, END]], [[START, 4, 4, END], [START, 9, 10, END]]]
    guess = [[[START, 7, 8], [START, 4, 5, 6]], [[START, 4, 5], [START, 10, 9]]]
    found = judged(guess, true)
    assert found.metrics["exact_match"].tolist() == [1.0, 0.0]
    assert found.metrics["token_accuracy"].tolist() == [1.0, 0.25]
    assert found.metrics["token_recall"].tolist() == [1.0, 0.75]
    assert set(found.metrics) == set(TRACK.metrics)
    assert found.facts["examples"][0] == {"true": "a b c", "recovered": "a b c"}


def test_a_sentence_with_a_word_that_the_vocabulary_lacks_is_not_recovered_verbatim():
    true = [[[START, 4, UNKNOWN, 6, END], [START, 7, 8, END]], [[START, UNKNOWN, END], [START, 9, 10, END]]]
    found = judged(true, true)
    assert found.metrics["exact_match"].tolist() == [1.0, 1.0]
    assert found.metrics["verbatim"].tolist() == found.controls["truth"]["verbatim"].tolist() == [0.5, 0.5]
    assert found.facts["unknown_words"] == 2 / 8
    known = [[[START, 4, END], [START, 7, 8, END]]] * 2
    assert judged(known, known).metrics["verbatim"].tolist() == [1.0, 1.0]


def test_overlaps_are_the_metrics_own():
    rng = np.random.default_rng(0)
    a, b = ([list(rng.integers(3, 12, rng.integers(1, 6))) for _ in range(4)] for _ in range(2))
    table = _overlaps(a, b)
    assert all(table[i, j] == pytest.approx(bag_overlap(b[j], a[i])) for i in range(4) for j in range(4))


def test_controls_know_the_population_only():
    found, _ = evaluated(attack(), scenario((1, 2), 8))
    blind = {"random_sentences", "unigram", "other_batch"}
    assert set(found.controls) == blind | {"truth"}
    for control in blind:
        assert mean(found, control=control) == 0.0
        assert 0.02 < mean(found, "token_recall", control) < 0.6
    assert mean(found, "rouge2", "random_sentences") > mean(found, "rouge2", "unigram")
    assert set(found.facts["by_batch_size"]["exact_match"]) == {"1", "2"}
    assert found.metrics["exact_match[B=2]"].shape == (8,)
