"""speakers: generated utterances of one second. No download, no network, nobody's voice.

A speaker has a vocal tract, a pitch and a way of speaking of their own; which vowels are said, how long, how loud, at
which pitch of their range and in which noise is drawn for each utterance (`_voices`). `private_speakers` are the
classes: their utterances are dealt to private, evaluation and heldout. The `public_speakers` are others, label -1.

x: float32 (n, samples) in [-1, 1] at 8,000 Hz. `extra`: `identity` (speaker), `pitch` (mean f0 of the utterance, Hz),
`tract` (factor of the speaker's resonances), `length` (samples), `index`.

Measured at the defaults (12 speakers, chance 8 %): a linear model of the mean pitch knows 25 % of the utterances, one
of the mel patches 17 % of windows of a quarter of a second, the small network of the audio track 82 to 86 % of the
windows and 91 to 95 % of the utterances. wander: standard deviation,
in semitones, of an utterance's pitch around the speaker's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, NonNegative
from inversionbench.data import _voices
from inversionbench.data.base import PARTS, Card, DatasetSource


@dataclass(frozen=True)
class Speakers(DatasetSource):
    """Generated speakers; private, public, evaluation and heldout are utterances of each speaker."""

    id = "speakers"
    task = "12 speakers"
    card = Card(
        name="Generated speakers",
        modality="audio",
        source="synthesised by this package from a seed",
        terms="nobody's voice; same licence as this package",
        citation="source and filter after Fant 1960; vowels after Peterson and Barney 1952",
        notes="vowels and hisses, no words",
        embedded=True,
    )

    private_speakers: Count = 12
    public_speakers: Count = 40
    private: Count = 16
    public: Count = 8
    evaluation: Count = 32
    heldout: Count = 8
    samples: Count = 8000
    wander: NonNegative = 2.0

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        if not 3200 <= self.samples <= 80_000:
            raise UserError(f"data.speakers.samples: expected 3200..80000 (0.4 to 10 s), got {self.samples}")
        if self.private_speakers < 2:
            raise UserError(f"data.speakers.private_speakers: expected at least 2, got {self.private_speakers}")
        everybody = [_voices.speaker(rng) for _ in range(self.private_speakers + self.public_speakers)]
        private = range(self.private_speakers)
        first = 0
        for part in PARTS:
            people = range(self.private_speakers, len(everybody)) if part == "public" else private
            who = np.repeat(np.array(people, np.int64)[None], getattr(self, part), 0).ravel()  # speakers take turns
            made = [_voices.utter(everybody[s], self.samples, self.wander, rng) for s in who]
            x, pitch = (np.array(column, np.float32) for column in zip(*made))
            sides = {"identity": who, "pitch": pitch, "length": np.full(len(who), self.samples),
                     "tract": np.array([everybody[s].tract for s in who], np.float32),
                     "index": np.arange(first, first + len(who))}  # fmt: skip
            out.put(part, x, np.where(part == "public", -1, who), **sides)
            first += len(who)
        out.meta(classes=self.private_speakers, rate=_voices.RATE)
