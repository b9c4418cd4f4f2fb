"""facescrub: photographs of 265 actors and 265 actresses (used by PPA and AMI; not in survey section 6).

The set is published as a list of links, many of them dead, so copies differ; the digest over the list of
files is recorded in `dataset.json` and belongs to every result. Layout, as PPA uses it: cropped faces in
`actors/faces/NAME/` and `actresses/faces/NAME/`. People are numbered by sorted name, actresses after actors.

In PPA all 530 people are private and the prior is trained on FFHQ: `private_people` 0 does that and leaves
public empty, for use with a public set from elsewhere. By default 424 people (four fifths, at random) are
private and the others public.

Options: resolution, crop (0: all of the picture), grey, private_people (0: all), photos (of a private person, 0: all),
evaluation_share, heldout_share. `extra`: `identity`, `index`. No name is stored or shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _images, _people, _stream
from inversionbench.data.base import Card, DatasetSource, File

FOLDERS = ("actors/faces", "actresses/faces")


@dataclass(frozen=True)
class Facescrub(DatasetSource):
    """FaceScrub; options in the module docstring."""

    id = "facescrub"
    task = "424 people"
    card = Card(
        name="FaceScrub",
        modality="image",
        source="H.-W. Ng, S. Winkler, vintage.winklerbros.net/facescrub.html",
        terms="list of links CC BY-NC-ND 4.0; images belong to their owners; password by e-mail request",
        citation="Ng, Winkler: A data-driven approach to cleaning large face datasets, ICIP 2014",
        files=tuple(File(folder) for folder in FOLDERS),
        manual_steps=(
            "request the lists by e-mail, download the images, keep those whose SHA-256 is the one in the "
            "list, crop them by their box into facescrub/actors/faces/NAME/ and "
            "facescrub/actresses/faces/NAME/ (.jpeg, .jpg or .png)"
        ),
        notes="people overlap with CelebA; 40 to 200 photos a person; the files depend on which links worked",
    )

    resolution: Count = 224
    crop: Whole = 0
    grey: bool = False
    private_people: Whole = 424
    photos: Whole = 0
    evaluation_share: Share = 0.3
    heldout_share: Share = 0.1

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        _stream.size(self.id, self.resolution)
        files = [f"{folder}/{name}" for folder in FOLDERS for name in _stream.names(root / folder)]
        if any(name.count("/") != 3 for name in files):
            raise UserError(f"{root}: expected pictures in actors/faces/NAME/ and actresses/faces/NAME/")
        person = _people.numbered([name.rsplit("/", 1)[0] for name in files])
        everyone = np.unique(person)
        if self.private_people and not 2 <= self.private_people <= len(everyone):
            most = f"0 or 2..{len(everyone)}"
            raise UserError(f"data.facescrub.private_people: expected {most}, got {self.private_people}")
        private = sorted(int(p) for p in rng.permutation(everyone)[: self.private_people or None])
        public = [int(p) for p in np.setdiff1d(everyone, private)]
        shares = {"evaluation": self.evaluation_share, "heldout": self.heldout_share}
        parts, sides = _people.plan(person, private, public, rng, shares, self.photos)
        mode, channels = ("L", 1) if self.grey else ("RGB", 3)
        out.drop_shared()
        _stream.write(
            out, parts, _stream.items(root, {name: i for i, name in enumerate(files)}),
            lambda data, name: _images.decode(data, name, self.resolution, self.crop, mode),
            (channels, self.resolution, self.resolution), sides,
        )  # fmt: skip
        out.meta(classes=len(private), private_people=len(private), public_people=len(public))
