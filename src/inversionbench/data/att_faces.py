"""att_faces: AT&T (ORL) database of faces, 40 people x 10 grey photographs 92x112 (survey section 6).

Generative attacks: subjects 1-20 private, 21-40 public (200 images: little for a prior). MI-Face: all 40
subjects are targets, `private_subjects` 40, and public is empty. Each private subject's ten images are dealt
by `evaluation` and `heldout` (images per subject). Rows 10 to 101 of each image are kept (92x92) and resized.

Releases: "zip" (att_faces.zip), "tar" (att_faces.tar.gz), with or without a leading folder att_faces/ in
them, "folder" (att_faces/s1 ... s40), "people" (s1 ... s40). No checksum was published and copies with
replaced faces exist; what was read is recorded. `extra`: `identity` (subject 1..40), `index`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Whole
from inversionbench.data import _images, _people, _stream, sources
from inversionbench.data.base import Card, DatasetSource, File

NAME = re.compile(r"(?:^|/)s(\d+)/(\d+)\.pgm$")
PEOPLE = tuple(f"s{i}" for i in range(1, 41))
SIZE = (92, 112)
BOX = (0, 10, 92, 102)


@dataclass(frozen=True)
class AttFaces(DatasetSource):
    """AT&T faces; options in the module docstring."""

    id = "att_faces"
    task = "20 people"
    card = Card(
        name="AT&T faces",
        modality="image",
        source="AT&T Laboratories Cambridge (Olivetti Research Laboratory)",
        terms="free for research; credit AT&T Laboratories Cambridge",
        citation="Samaria, Harter: Parameterisation of a stochastic model for human face identification, 1994",
        files=(File("att_faces.zip"), File("att_faces.tar.gz"), File("att_faces", count=400),
               *(File(person, count=10) for person in PEOPLE)),
        manual_steps="put att_faces.zip or att_faces.tar.gz (from the archived site of the lab) into att_faces/",
        notes="images of a subject are near-duplicates: a class mean is the person, SSIM is high against any",
    )

    release: str = "auto"
    resolution: Count = 64
    private_subjects: Count = 20
    evaluation: Whole = 3
    heldout: Whole = 2

    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"zip": ("att_faces.zip",), "tar": ("att_faces.tar.gz",), "folder": ("att_faces",),
                "people": PEOPLE}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        _stream.size(self.id, self.resolution)
        release = sources.release_of(self, root)
        path = root if release == "people" else root / self.needs()[release][0]
        names = [n for n in _stream.names(path) if NAME.search(n)]
        person = np.array([int(NAME.search(n).group(1)) for n in names], np.int64)  # type: ignore[union-attr]
        if len(names) != 400 or len(set(person)) != 40:
            raise UserError(f"{path}: expected 40 subjects s1 ... s40 with 10 images, found {len(names)} images")
        if not 2 <= self.private_subjects <= 40 or self.evaluation + self.heldout > 9:
            raise UserError("data.att_faces: private_subjects 2..40, and an image must be left for private")
        private = list(range(1, self.private_subjects + 1))
        public = list(range(self.private_subjects + 1, 41))
        shares = {"evaluation": self.evaluation / 10, "heldout": self.heldout / 10}
        parts, sides = _people.plan(person, private, public, rng, shares)
        _stream.write(
            out, parts, _stream.items(path, {name: i for i, name in enumerate(names)}),
            lambda data, name: _images.decode(data, name, self.resolution, mode="L", box=BOX, native=SIZE),
            (1, self.resolution, self.resolution), sides,
        )  # fmt: skip
        out.meta(classes=len(private), private_people=len(private), public_people=len(public))
