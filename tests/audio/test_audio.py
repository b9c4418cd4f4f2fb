"""Voices from recognisers of speakers: the data, the way to and from patches, the attacks and their two listeners."""

from __future__ import annotations

import io
import subprocess
import sys
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from audio_cells import (
    PEOPLE,
    TRACK,
    asked,
    attack,
    build,
    data,
    judged,
    judges,
    metrics,
    reconstruct,
    scenario,
    target,
)

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.data import _voices
from inversionbench.data.speakers import Speakers
from inversionbench.models import audio
from inversionbench.plan.params import Entry
from inversionbench.survey.sounds import wav
from inversionbench.tracks.audio.attacks._public import Components, public_windows
from inversionbench.tracks.audio.evaluate import seams

PLAIN = attack("sliding_mi", calls=60)
PRIOR = attack("sliding_mi", calls=60, components=60)
CHUNKS, LONG = attack("sliding_mi", calls=60, mode="chunks"), attack("sliding_mi", calls=60, mode="long")
PUBLIC = attack("best_public", queries=60 * PEOPLE)


def test_no_torch_for_checking():
    code = (
        "import sys\nfrom inversionbench.core.scenario import Scenario\n"
        "from inversionbench.tracks import get_track\n"
        "get_track('audio').check(Scenario('s', 'audio', 'speakers', {'name': 'speaker_net'}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "speakernet"}}, "did you mean 'speaker_net'"),
        ({"model": {"name": "speaker_net", "width": 0}}, r"model\.width"),
        ({"training": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"protocol": {"frame": 30}}, "did you mean 'frames'"),
        ({"protocol": {"frames": 23}}, "expected at least 24"),
    ],
)
def test_bad_scenarios(change, message):
    with pytest.raises(UserError, match=message):
        TRACK.check(replace(scenario(), **change))


def test_nobody_is_private_and_public():
    private, public = (set(getattr(data(), part).extra["identity"].tolist()) for part in ("private", "public"))
    assert private == set(range(PEOPLE))
    assert len(public) == 20
    assert not private & public
    assert (np.asarray(data().public.y) == -1).all()
    again = build(Speakers(private_speakers=2, public_speakers=2, private=1, public=1, evaluation=1, heldout=1), 3)
    for part in ("private", "public", "evaluation", "heldout"):
        x = getattr(again, part).x
        assert x.dtype == np.float32
        assert np.abs(x).max() <= 1
    with pytest.raises(UserError, match=r"data\.speakers\.samples"):
        build(Speakers(samples=100))


def test_pitch_alone_tells_little_and_the_network_much():
    """Chance 0.17. A linear model of the pitch 0.3 to 0.45; windows by the target and the listeners 0.65 to 0.9."""
    from sklearn.linear_model import LogisticRegression

    known, heard = ((np.log(part.extra["pitch"])[:, None] - 5) * 10 for part in (data().evaluation, data().heldout))
    linear = LogisticRegression(C=100, max_iter=1000).fit(known, data().evaluation.y)
    assert linear.score(heard, data().heldout.y) < 0.6
    found = TRACK.utility_of(scenario(), target(), NONE, data(), 0)
    assert found["accuracy"] > 0.45
    assert found["clip_accuracy"] > 0.5
    assert len(found["hits"]) == 7 * len(data().heldout)
    assert min(judges()["accuracy"].values()) > 0.4


def test_resonances_are_where_the_voice_has_them():
    voice = replace(_voices.speaker(np.random.default_rng(0)), tract=1.1, shape=np.ones(4), widths=np.full(4, 60.0))
    from scipy.signal import sosfreqz

    f, gain = sosfreqz(_voices._resonances(voice, _voices.VOWELS[2]), worN=4000, fs=_voices.RATE)
    for centre in 1.1 * _voices.VOWELS[2]:
        near = np.abs(f - centre) < 150
        assert abs(f[near][np.abs(gain[near]).argmax()] - centre) < 40


def test_pitch_is_read_from_sound():
    """Median error 0.3 semitones over generated clips."""
    read, true = audio.pitch(data().heldout.tensor()), torch.from_numpy(data().heldout.extra["pitch"])
    assert (12 * (read / true).log2()).abs().median() < 0.8
    t = torch.arange(4000) / audio.RATE
    tone = sum(torch.sin(2 * torch.pi * 125 * k * t) / k for k in range(1, 6))
    assert float(audio.pitch(tone[None])) == pytest.approx(125, abs=1)


def test_gain_and_channel_leave_the_patch_alone():
    sound, length = data().heldout.tensor()[:2], torch.tensor([8000, 8000])
    first = audio.patches(sound, length)
    quiet = audio.patches(0.1 * sound, length)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(first, quiet))
    assert all(p.shape == (audio.BANDS, 97) for p in first)
    assert torch.allclose(first[0].mean(1), torch.full((audio.BANDS,), 0.5), atol=0.02)
    cut = audio.windows(first[0])
    assert torch.equal(cut[1], first[0][:, 12:36])


def test_sound_of_a_patch_has_that_patch():
    """Correlation 0.93 over generated clips."""
    whole = torch.stack(audio.patches(data().heldout.tensor()[:4], torch.full((4,), 8000)))
    level = audio.decibels(data().public.tensor()).mean((0, 2))
    sound = audio.audible(whole, level, torch.Generator().manual_seed(0))
    again = torch.stack(audio.patches(sound, torch.full((4,), sound.shape[1])))
    assert torch.corrcoef(torch.stack([whole.flatten(), again.flatten()]))[0, 1] > 0.8


@pytest.mark.parametrize("frames", [24, 72])  # more windows than numbers in one, and fewer
def test_components_of_the_public_windows(frames):
    """In their coordinates the windows have variance 1 and no correlation, and more components leave less."""
    found = Components.of(data().public, frames, 6)
    every = public_windows(data().public, frames, frames // 4)
    z = found.coordinates(every)
    assert torch.allclose(z.T @ z / len(z), torch.eye(6), atol=0.02)
    shown = [Components(found.mean, found.scaled[-k:], frames).patch(z[:, -k:]) for k in (2, 6)]
    left = [(patch - every).square().mean() for patch in shown]
    assert left[1] < left[0] < every.var(0).mean()


def test_plain_inversion_fools_the_target_and_not_the_second_listener():
    """Windows taken for the speaker: the target 0.98, both listeners 0.2, standard error 0.07; two listeners that are
    built differently are a must."""
    found = metrics(PLAIN)
    assert found["speaker_target"] > 0.8
    assert found["speaker_both"] < found["speaker_target"] - 0.3
    assert found["speaker_both"] <= min(found["speaker_first"], found["speaker_second"])


def test_public_speakers_make_it_a_voice():
    """Both listeners, standard error 0.08: random public clips 0.1, with the prior 0.6, best public windows 0.7."""
    guess = judged(PRIOR).controls["public_speech"]["speaker_both"].mean()
    ceiling = judged(PRIOR).controls["heldout_speech"]["speaker_both"].mean()
    for method in (PRIOR, PUBLIC):
        assert metrics(method)["speaker_both"] > guess + 0.1
    assert ceiling > guess + 0.2


@pytest.mark.parametrize(("method", "passes", "queries"), [
    (PLAIN, 60 * PEOPLE, 0), (PRIOR, 60 * PEOPLE, 0), (CHUNKS, 60 * PEOPLE, 0), (LONG, 60 * PEOPLE, 0),
    (PUBLIC, 0, 60 * PEOPLE)], ids=repr)  # fmt: skip
def test_all_ways_ask_equally_much(method, passes, queries):
    answer, oracle, knowledge = reconstruct(method)
    assert (oracle.ledger.passes, oracle.ledger.queries) == (passes, queries)
    assert answer.problem() == ""
    assert answer.data.shape == (PEOPLE, 1, audio.BANDS, 72)
    assert answer.data.min() >= 0
    assert answer.data.max() <= 1
    assert knowledge.used <= {"public", "targets", "frames"}


def test_windows_slide_over_what_is_inverted_already():
    """The windows that are asked about begin with the frames that the one before was left with."""
    starts = PLAIN._starts(72, 24)
    assert starts == [0, 12, 24, 36, 48]
    assert CHUNKS._starts(60, 24) == [0, 24, 36]  # the last ends with the signal
    assert LONG._starts(72, 24) == [0]


def test_seams():
    smooth = torch.zeros(1, audio.BANDS, 72)
    smooth[..., ::2] = 1
    assert seams(smooth) == pytest.approx(1)
    stairs = torch.arange(3.0).repeat_interleave(24).expand(1, audio.BANDS, 72) + 0.01 * smooth
    assert seams(stairs) > 100


def test_same_seed_same_answer():
    oracle, knowledge = asked(PRIOR)
    assert torch.equal(PRIOR.run(oracle, knowledge, torch.Generator().manual_seed(0)).data, reconstruct(PRIOR)[0].data)


@pytest.mark.parametrize(("method", "call"), [(PLAIN, "scores"), (PUBLIC, "module"), (PUBLIC, "labels")])
def test_other_calls_are_denied(method, call):
    with pytest.raises(AccessDenied):
        getattr(asked(method)[0], call)


def test_listeners_are_needed():
    with pytest.raises(UserError, match="two listeners"):
        TRACK.evaluate(scenario(), reconstruct(PUBLIC)[0], target(), data(), {}, 0)


def test_sounds_and_pictures_of_a_cell():
    found = judged(PRIOR)
    assert {name: len(sound) for name, sound in found.sounds.items()} == {"original": 5936, "reconstruction": 5936}
    assert set(found.gallery) == {"original", "reconstruction", "nearest"}
    with wave.open(io.BytesIO(wav(found.sounds["reconstruction"]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8000, 1, 5936)
        samples = np.frombuffer(file.readframes(5936), "<i2")
    assert np.abs(samples).max() > 16000  # audible


ACTING = [name for name in registry.methods("defense") if Entry(name, "defense", name).suits(TRACK, scenario())]


@pytest.mark.parametrize("name", ACTING)
def test_strength_0_is_no_defense_bit_for_bit(name):
    done = target(registry.get("defense", name)(strength=0.0), 1).released
    plain = target(NONE, 1).released
    assert all(torch.equal(done["weights"][k], plain["weights"][k]) for k in plain["weights"])
