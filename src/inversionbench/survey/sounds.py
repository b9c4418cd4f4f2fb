"""Sounds of cells: WAV files beside the records, and what of them the report holds inside itself.

The report is one file, so it takes `MOST` bytes of sound at most: of every scenario the original and the first
reconstruction of each attack without defense, strongest first, as far as they fit.
"""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inversionbench.core.files import atomic, whole
from inversionbench.core.records import made_in
from inversionbench.survey import words
from inversionbench.survey.figures import headline_rows, quantity

if TYPE_CHECKING:
    from inversionbench.survey.build import Survey

RATE = 8000
MOST = 145_000  # bytes of WAV in one report, 195 kB as text


def wav(samples: Any, rate: int = RATE) -> bytes:
    """16-bit mono. samples: float (n,) in [-1, 1].

    >>> len(wav(np.zeros(100)))
    244
    """
    whole_numbers = np.rint(np.clip(np.asarray(samples), -1, 1) * 32767).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(whole_numbers.tobytes())
    return out.getvalue()


def save(path: Path, samples: Any) -> None:
    with atomic(path) as part:
        part.write_bytes(wav(samples))


def embedded(survey: Survey) -> dict[str, list[tuple[str, str]]]:
    """Scenario -> (what is heard, the sound as a data URI), of the first seed of each attack that left a sound."""
    first: dict[tuple[str, str], Path] = {}
    for record in sorted(survey.records, key=lambda r: r["seed"]):
        place = Path(record.get("folder", ""))  # of records that were read
        if record["defense"] == "none" and "folder" in record and (place / "reconstruction.wav").is_file():
            first.setdefault((record["scenario"], record["attack"]), place)
    scenarios = {scenario for scenario, _ in first}
    out: dict[str, list[tuple[str, str]]] = {}
    for scenario in sorted(scenarios):
        rows = headline_rows(survey.attacks, scenario)
        order = rows.sort_values("mean", ascending=quantity(rows).direction == "lower")
        files = [(words.method("attack", row.attack, row.method), first[scenario, row.attack] / "reconstruction.wav")
                 for row in order.itertuples() if (scenario, row.attack) in first]  # fmt: skip
        original = files[0][1].with_name("original.wav")
        left = MOST // len(scenarios)
        for label, path in [*([("the speaker", original)] if original.is_file() else []), *files]:
            with whole(path, made_in(path.parent)):
                data = path.read_bytes()
            left -= len(data)
            if left >= 0:
                uri = "data:audio/wav;base64," + base64.b64encode(data).decode()
                out.setdefault(scenario, []).append((label, uri))
    return out
