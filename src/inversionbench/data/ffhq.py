"""ffhq: Flickr-Faces-HQ, 70,000 aligned photographs without identities (survey section 6).

Public data only: priors of PPA, MIRROR and IF-GMI, and the shifted public set of KED-MI, LOMMA and PLG-MI.
The parts private, evaluation and heldout are empty; combine it with a private set.

Releases: "thumbnails" (folder thumbnails128x128) and "images" (folder images1024x1024), with or without
subfolders of a thousand. Options: release, resolution, crop_share (side of the centred square kept, as a
share of the picture: 800 of 1024 pixels brings the face to the size it has in CelebA's crop), public (number
of images at random, 0: all), check_md5 (compare every picture with ffhq-dataset-v2.json).
`extra`: `index` (number of the image in the set).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, PositiveShare, Whole
from inversionbench.data import _images, _stream, sources
from inversionbench.data.base import Card, DatasetSource, File

FOLDERS = {"thumbnails": "thumbnails128x128", "images": "images1024x1024"}
LIST = "ffhq-dataset-v2.json"


@dataclass(frozen=True)
class Ffhq(DatasetSource):
    """FFHQ; options in the module docstring."""

    id = "ffhq"
    task = "none (public only)"
    card = Card(
        name="FFHQ",
        modality="image",
        source="NVIDIA, github.com/NVlabs/ffhq-dataset",
        terms="set CC BY-NC-SA 4.0; single images CC BY, CC BY-NC, public domain; people may ask for removal",
        citation="Karras, Laine, Aila: A style-based generator architecture for GANs, CVPR 2019",
        files=(*(File(folder, count=70000) for folder in FOLDERS.values()), File(LIST)),
        manual_steps=(
            "with the download script of the repository get thumbnails128x128 (2 GB; enough up to 128 pixels) "
            "or images1024x1024 (89 GB) into ffhq/; with check_md5 also ffhq-dataset-v2.json"
        ),
        notes="never private: it has no identities. Some celebrities are in it",
    )

    release: str = "auto"
    resolution: Count = 64
    crop_share: PositiveShare = 0.78125
    public: Whole = 30000
    check_md5: bool = False

    def needs(self) -> dict[str, tuple[str, ...]]:
        listed = (LIST,) if self.check_md5 else ()
        return {release: (folder, *listed) for release, folder in FOLDERS.items()}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        _stream.size(self.id, self.resolution)
        if not 0 < self.crop_share <= 1:
            raise UserError(f"data.ffhq.crop_share: expected above 0, at most 1; got {self.crop_share}")
        release = sources.release_of(self, root)
        folder = root / FOLDERS[release]
        names = _stream.names(folder)
        if not names or not all(Path(name).stem.isdigit() for name in names):
            raise UserError(f"{folder}: expected pictures named 00000.png ... 69999.png")
        number = {name: int(Path(name).stem) for name in names}
        md5 = _md5(root / LIST, release) if self.check_md5 else {}
        chosen = rng.permutation(sorted(number.values()))[: self.public or None]
        count = max(number.values()) + 1
        none = np.empty(0, np.int64)

        def decode(data: bytes, name: str) -> np.ndarray:
            if self.check_md5:
                _same(data, name, md5)
            picture = _images.opened(data, name).convert("RGB")
            return _images.square(picture, self.resolution, round(self.crop_share * min(picture.size)))

        _stream.write(
            out, {"private": none, "public": chosen, "evaluation": none, "heldout": none},
            _stream.items(folder, number), decode, (3, self.resolution, self.resolution),
            {"y": np.full(count, -1, np.int64)},
        )  # fmt: skip
        out.meta(classes=0)


def _md5(path: Path, release: str) -> dict[int, str]:
    """Number of the image -> md5 of its file, from the list of the set."""
    key = {"thumbnails": "thumbnail", "images": "image"}[release]
    try:
        return {int(number): entry[key]["file_md5"] for number, entry in json.loads(path.read_text()).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the list of the set ({error}); get it again") from error


def _same(data: bytes, name: str, md5: dict[int, str]) -> None:
    got = hashlib.md5(data, usedforsecurity=False).hexdigest()
    expected = md5.get(int(Path(name).stem))
    if got != expected:
        raise UserError(f"{name}: md5 {got}, expected {expected} by {LIST}; get the picture again")
