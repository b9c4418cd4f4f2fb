"""celeba: 202,599 aligned photographs, 178x218, of 10,177 celebrities, 40 attributes (survey section 6).

As in GMI, KED-MI, PLG-MI and LOMMA: 1,000 private identities (about 30 photos each), 30,000 public photos of
other identities, the centre 108 pixels shrunk to 64. The lists of those papers are not part of the data set,
so the private identities are the most frequent ones (as in PPA; ties by number), numbered by their CelebA
number. Their photos are dealt to private, evaluation and heldout; the papers train the evaluator on the
target's own images. The official partition is by identity and is not used.

Options: release ("zip": img_align_celeba.zip; "folder": unpacked), partial (take the pictures that are
there), resolution, crop, grey, private_people, public (photos, people taking turns), evaluation_share,
heldout_share, attribute (empty: the identity is the label; otherwise one of the 40 names, then y is 0 or 1
everywhere and identities stay disjoint). `extra`: `identity` (CelebA number), `index` (image number), with
`attribute` also `attributes` (n, 40) uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _formats, _images, _people, _stream, sources
from inversionbench.data.base import Card, DatasetSource, File

ZIP, FOLDER = "img_align_celeba.zip", "img_align_celeba"
IDENTITY, ATTRIBUTES = "identity_CelebA.txt", "list_attr_celeba.txt"


@dataclass(frozen=True)
class Celeba(DatasetSource):
    """CelebA; options in the module docstring."""

    id = "celeba"
    task = "1000 people"
    card = Card(
        name="CelebA",
        modality="image",
        source="Multimedia Laboratory, CUHK, mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        terms="non-commercial research only, no redistribution; agree on the site",
        citation="Liu, Luo, Wang, Tang: Deep learning face attributes in the wild, ICCV 2015",
        files=(
            File(ZIP, md5="00d2c5bc6d35e252742224ab0c1e8fcb"),
            File(FOLDER, count=202599),
            File(IDENTITY, md5="32bd1bd63d3c78cd57e08160ec5ed1e2"),
            File(ATTRIBUTES, md5="75e246fa4810816ffd6ee81facbd244c"),
        ),
        manual_steps=(
            "agree to the terms on the site, download img_align_celeba.zip, identity_CelebA.txt and (for "
            "attribute tasks) list_attr_celeba.txt by hand into celeba/; the identity file may need an e-mail"
        ),
        notes="overlaps with FaceScrub and with the training sets of published face generators",
    )

    release: str = "auto"
    partial: bool = False
    resolution: Count = 64
    crop: Count = 108
    grey: bool = False
    private_people: Whole = 1000
    public: Whole = 30000
    evaluation_share: Share = 0.3
    heldout_share: Share = 0.1
    attribute: str = ""

    def needs(self) -> dict[str, tuple[str, ...]]:
        tables = (IDENTITY, ATTRIBUTES) if self.attribute else (IDENTITY,)
        return {"zip": (ZIP, *tables), "folder": (FOLDER, *tables)}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        _stream.size(self.id, self.resolution)
        folder = sources.release_of(self, root) == "folder"
        where = root / (FOLDER if folder else ZIP)
        pairs = _stream.kept(_identities(root / IDENTITY), lambda pair: pair[0], [where], self.partial, out)
        files, person = [name for name, _ in pairs], np.array([number for _, number in pairs], np.int64)
        private = _people.frequent(person, 2, self.private_people, "data.celeba.private_people")
        public = _people.others(person, private, 0, rng, "data.celeba.public")
        shares = {"evaluation": self.evaluation_share, "heldout": self.heldout_share}
        parts, sides = _people.plan(person, private, public, rng, shares, limit=self.public)
        classes = len(private)
        if self.attribute:
            sides, classes = self._attributes(root / ATTRIBUTES, files, sides), 2
        nested = not folder or (where / FOLDER).is_dir()  # Kaggle's copy has the folder in itself
        prefix = f"{FOLDER}/" if nested else ""
        mode, channels = ("L", 1) if self.grey else ("RGB", 3)
        out.drop_shared()
        _stream.write(
            out, parts,
            _stream.items(where, {prefix + f: i for i, f in enumerate(files)}),
            lambda data, name: _images.decode(data, name, self.resolution, self.crop, mode, native=(178, 218)),
            (channels, self.resolution, self.resolution), sides, label=files.__getitem__,
        )  # fmt: skip
        out.meta(classes=classes, private_people=len(private), public_people=len(public))

    def _attributes(self, path: Path, files: list[str], sides: dict[str, Any]) -> dict[str, Any]:
        """The 40 attributes as 0/1, and the one that is the task as y."""
        lines = _formats.text(path.read_bytes(), str(path)).splitlines()
        names = lines[1].split() if len(lines) > 1 else []
        if self.attribute not in names:
            raise UserError(
                f"data.celeba.attribute: unknown '{self.attribute}': {suggest(self.attribute, names)}"
            )
        rows = {words[0]: words[1:] for words in map(str.split, lines[2:]) if words}
        if any(len(rows.get(f, ())) != len(names) for f in files):
            raise UserError(f"{path}: some image has no line of {len(names)} attributes; get the file again")
        table = np.array([rows[f] for f in files], np.int8) == 1
        y = table[:, names.index(self.attribute)].astype(np.int64)
        return {**sides, "y": y, "attributes": table.astype(np.uint8)}


def _identities(path: Path) -> list[tuple[str, int]]:
    """File name and identity of each picture, from identity_CelebA.txt, sorted by file name."""
    lines = [line.split() for line in _formats.text(path.read_bytes(), str(path)).splitlines() if line.strip()]
    if not lines or any(len(words) != 2 or not words[1].isdigit() for words in lines):
        raise UserError(f"{path}: expected lines of an image name and a number; get the file again")
    return [(name, int(number)) for name, number in sorted(lines)]
