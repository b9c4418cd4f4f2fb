"""fsdd: Free Spoken Digit Dataset, 3,000 clips, 6 speakers x 10 digits x 50 (audio track; not in section 6).

The task is the speaker. `public_speakers` of the six, at random, are public (labels -1; 0: none), the others
private: clips 0-4 of each speaker and digit are held out (the owner's test set), 5-24 private, 25-49
evaluation. x: float32 (n, samples) in [-1, 1) at 8,000 Hz, filled with zeros after the end of the clip;
longer clips are cut. One microphone per speaker: without removing the recording channel a classifier
recognises the microphone. Options: release, public_speakers, samples.
`extra`: `length` (samples of the clip that are in x), `digit`, `identity` (speaker), `index`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Whole
from inversionbench.data import _archives, _formats, _people, _split, sources
from inversionbench.data.base import PARTS, Card, DatasetSource, File

ARCHIVE, FOLDER, RATE = "free_spoken_digits.tar.gz", "recordings", 8000
NAME = re.compile(r"(?:^|/)recordings/(\d)_([a-z]+)_(\d+)\.wav$")


@dataclass(frozen=True)
class Fsdd(DatasetSource):
    """Free Spoken Digit Dataset; options in the module docstring."""

    id = "fsdd"
    task = "4 speakers"
    card = Card(
        name="Free Spoken Digit Dataset",
        modality="audio",
        source="Z. Jackson and others, github.com/Jakobovski/free-spoken-digit-dataset",
        terms="CC BY-SA 4.0",
        citation="Jackson et al.: Free Spoken Digit Dataset, v1.0.10, 2020",
        files=(
            File(
                ARCHIVE, size=15566181,
                sha256="b8f087bc9d5c545fe5468a9febde9b9643520a6352c75be86b96328be04ef5c2",
            ),
            File(FOLDER),
        ),
        manual_steps="put the folder recordings/ of the repository into fsdd/",
        notes="six speakers are few; 8 kHz mono, 0.14 to 2.3 s",
    )  # fmt: skip

    release: str = "auto"
    public_speakers: Whole = 2
    samples: Count = 8000

    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"archive": (ARCHIVE,), "folder": (FOLDER,)}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        if not 800 <= self.samples <= 80_000:
            raise UserError(f"data.fsdd.samples: expected 800..80000 (0.1 to 10 s), got {self.samples}")
        x, length, digit, speaker, take = self._clips(root)
        count = int(speaker.max()) + 1
        if not 0 <= self.public_speakers <= count - 2:
            raise UserError(f"data.fsdd.public_speakers: 0..{count - 2}, got {self.public_speakers}")
        order = rng.permutation(count)
        private = sorted(int(s) for s in order[self.public_speakers :])
        y = _split.renumber(speaker, private)
        mine = y >= 0
        chosen = {
            "private": mine & (take >= 5) & (take < 25), "public": ~mine,
            "evaluation": mine & (take >= 25), "heldout": mine & (take < 5),
        }  # fmt: skip
        for part in PARTS:
            rows = _split.robin(np.flatnonzero(chosen[part]), speaker * 10 + digit, rng)
            sides = {"length": length, "digit": digit, "identity": speaker}
            out.put(part, x[rows], y[rows], index=rows, **{name: value[rows] for name, value in sides.items()})
        out.meta(classes=len(private), rate=RATE)

    def _clips(self, root: Path) -> tuple[np.ndarray, ...]:
        """All clips in the order of their names: x, length, digit, speaker (number by name), take."""
        found = sorted(self._read(root), key=lambda clip: clip[0])
        if not found:
            raise UserError(f"{root}: no recordings/DIGIT_SPEAKER_TAKE.wav")
        x = np.zeros((len(found), self.samples), np.float32)
        length = np.zeros(len(found), np.int64)
        for i, (_, clip) in enumerate(found):
            length[i] = min(len(clip), self.samples)
            x[i, : length[i]] = clip[: length[i]]
        digit, names, take = zip(*(key for key, _ in found))
        speaker = _people.numbered(names)
        return x, length, np.array(digit, np.int64), speaker, np.array(take, np.int64)

    def _read(self, root: Path) -> Iterator[tuple[tuple[int, str, int], np.ndarray]]:
        """(digit, speaker, take) and samples of each clip."""
        if sources.release_of(self, root) == "folder":
            files = ((f"{FOLDER}/{p.name}", p.read_bytes) for p in (root / FOLDER).glob("*.wav"))
        else:
            files = _archives.members(root / ARCHIVE)  # type: ignore[assignment]
        for name, read in files:
            if match := NAME.search(name):
                key = int(match[1]), match[2], int(match[3])
                yield key, _formats.wav(read(), f"{root}: {name}", RATE)
