"""Voices by a source and a filter: pulses of the vocal folds and breath, through the resonances of a vocal tract.

What is fixed for a speaker is a `Voice`; text, exact pitch, loudness, noise and gain are drawn anew for every
utterance, so that they tell nothing of who speaks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATE = 8000  # samples a second
# first three resonances (Hz) of five vowels, a man's, after Peterson and Barney 1952; the fourth is FOURTH
VOWELS = np.array(
    [[270, 2290, 3010], [530, 1840, 2480], [730, 1090, 2440], [570, 840, 2410], [300, 870, 2240]], dtype=float
)
FOURTH, HIGHEST = 3300.0, 3850.0


@dataclass(frozen=True)
class Voice:
    """One speaker. pitch: mean f0, Hz. tract: factor of all resonances, larger for a shorter vocal tract. shape: factor
    of each resonance, (4,). widths: bandwidths, Hz, (4,). tilt: pole of the source's lowpass. breath: share of noise.
    jitter: of single periods. vibrato: depth in semitones and rate in Hz. fall: semitones a second. pace: factor of
    durations. hiss: share of gaps with a fricative, the others are silent."""

    pitch: float
    tract: float
    shape: np.ndarray
    widths: np.ndarray
    tilt: float
    breath: float
    jitter: float
    vibrato: tuple[float, float]
    fall: float
    pace: float
    hiss: float


def speaker(rng: np.random.Generator) -> Voice:
    """Somebody; the ranges overlap, so that no single number says who it is."""
    return Voice(
        pitch=float(np.exp(rng.uniform(np.log(95), np.log(210)))), tract=rng.uniform(0.85, 1.2),
        shape=1 + rng.uniform(-0.06, 0.06, 4), widths=np.array([60, 90, 130, 180]) * rng.uniform(0.7, 1.6, 4),
        tilt=rng.uniform(0.6, 0.93), breath=rng.uniform(0.02, 0.3), jitter=rng.uniform(0.01, 0.03),
        vibrato=(rng.uniform(0, 0.7), rng.uniform(4, 7)), fall=rng.uniform(0, 6), pace=rng.uniform(0.75, 1.3),
        hiss=rng.uniform(0.1, 0.9),
    )  # fmt: skip


def utter(voice: Voice, samples: int, wander: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(float32 (samples,) in [-1, 1], mean f0 in Hz) of some vowels with gaps. wander: standard deviation of the
    utterance's own pitch, in semitones."""
    from scipy.signal import lfilter, sosfilt

    source, pitch = _source(voice, samples, wander, rng)
    out, state, start, gap = np.zeros(samples), np.zeros((4, 2)), 0, False
    while start < samples:
        length = int(RATE * rng.uniform(0.04, 0.08) * voice.pace if gap else RATE * rng.uniform(0.08, 0.2) * voice.pace)
        part = np.s_[start : min(samples, start + length)]
        envelope = np.sin(np.pi * (np.arange(part.stop - start) + 0.5) / length) ** 0.5 * rng.uniform(0.6, 1)
        if gap:
            loud = 0.15 * (rng.random() < voice.hiss)
            out[part] = loud * lfilter([1, -0.9], [1], rng.standard_normal(part.stop - start)) * envelope
        else:
            sections = _resonances(voice, VOWELS[rng.integers(len(VOWELS))])
            out[part], state = sosfilt(sections, source[part], zi=state)
            out[part] *= envelope
        start, gap = part.stop, not gap and rng.random() < 0.4
    power = np.sqrt(np.mean(np.square(out)))
    out = out + 0.1 * power * rng.standard_normal(samples)  # 20 dB
    return (rng.uniform(0.3, 1) * out / np.abs(out).max()).astype(np.float32), pitch


def _source(voice: Voice, samples: int, wander: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Pulses with jitter and breath between them, lowpassed; and the mean pitch."""
    from scipy.signal import lfilter

    time = np.arange(samples) / RATE
    depth, speed = voice.vibrato
    semitones = wander * rng.standard_normal() - voice.fall * (time - time.mean())
    semitones += depth * np.sin(2 * np.pi * (speed * time + rng.random()))
    f0 = voice.pitch * 2 ** (semitones / 12)
    knots = np.arange(0, samples + 80, 80)
    unsteady = np.interp(np.arange(samples), knots, voice.jitter * rng.standard_normal(len(knots)))
    phase = np.cumsum(f0 * (1 + unsteady)) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0) * np.sqrt(RATE / f0)  # one power at any pitch
    noisy = pulses + voice.breath * rng.standard_normal(samples)
    return lfilter([1], [1, -voice.tilt], noisy), float(f0.mean())


def _resonances(voice: Voice, vowel: np.ndarray) -> np.ndarray:
    """Second-order sections, (4, 6), each with gain 1 at frequency 0."""
    centre = np.minimum(np.append(vowel, FOURTH) * voice.tract * voice.shape, HIGHEST)
    radius, angle = np.exp(-np.pi * voice.widths / RATE), 2 * np.pi * centre / RATE
    a1, a2 = -2 * radius * np.cos(angle), radius**2
    zero, one = np.zeros(4), np.ones(4)
    return np.stack([1 + a1 + a2, zero, zero, one, a1, a2], 1)
