"""lfw: Labeled Faces in the Wild, photographs of public figures, 250x250 colour (survey section 6).

Releases: "full" (lfw.tgz, 13,233 photos of 5,749 people), "funneled", "deepfunneled", "funneled_folder" and
"deepfunneled_folder" (unpacked: PERSON/*.jpg in lfw_funneled or lfw-deepfunneled, once more nested or not),
and "subset" (lfw_subset.tar: 34 people with 30 photos, 80 others with 4). The private people are those with
at least `min_photos` photos (34 in every release), of whom the first `photos` are used, so the full release
has the private people of the subset. All others, or `public_people` of them, are public. Each private
person's photos are dealt to private, evaluation and heldout.

Options: release, resolution, crop (side of the centred square that is kept, of 250 pixels), grey, min_photos,
private_people (0: all that qualify; otherwise the most frequent), photos (0: all), public_people and public
(number of people and of photos, 0: all), evaluation_share, heldout_share. `extra`: `identity`, `index`.
People are numbers here; no name is stored or shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _images, _people, _stream, sources
from inversionbench.data.base import Card, DatasetSource, File

ARCHIVES = {
    "full": "lfw.tgz", "funneled": "lfw-funneled.tgz", "deepfunneled": "lfw-deepfunneled.tgz",
    "subset": "lfw_subset.tar", "funneled_folder": "lfw_funneled", "deepfunneled_folder": "lfw-deepfunneled",
}  # fmt: skip


@dataclass(frozen=True)
class Lfw(DatasetSource):
    """Labeled Faces in the Wild; options in the module docstring."""

    id = "lfw"
    folders = ("lfw-py", "lfw_home", ".")  # of torchvision, scikit-learn, Kaggle
    task = "34 people"
    titles = {
        "funneled": "LFW (funneled)", "deepfunneled": "LFW (deepfunneled)", "subset": "LFW (subset)",
        "funneled_folder": "LFW (funneled)", "deepfunneled_folder": "LFW (deepfunneled)",
    }  # fmt: skip
    card = Card(
        name="LFW",
        modality="image",
        source="University of Massachusetts, vis-www.cs.umass.edu/lfw",
        terms="research use; photographs from news sites, no licence is granted by the site",
        citation="Huang, Ramesh, Berg, Learned-Miller: Labeled Faces in the Wild, TR 07-49, 2007",
        files=(
            File(
                "lfw.tgz", sha256="055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
                md5="a17d05bd522c52d84eca14327a23d494", url="https://ndownloader.figshare.com/files/5976018",
            ),
            File(
                "lfw-funneled.tgz", sha256="b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
                md5="1b42dfed7d15c9b2dd63d5e5840c86ad", url="https://ndownloader.figshare.com/files/5976015",
            ),
            File("lfw-deepfunneled.tgz", md5="68331da3eb755a505a502b5aacb3c201"),
            File(
                "lfw_subset.tar", size=19793920,
                sha256="c32567393b9e0be58cd140785ccedf9ef5899e35b9a78d87eb987543b2446293",
            ),
            File("lfw_funneled", count=13233),
            File("lfw-deepfunneled", count=13233),
        ),
        manual_steps="put lfw.tgz (or lfw-funneled.tgz) into lfw/; the site names mirrors when it is down",
        notes="real people: show no names, use for evaluation only; a bias and a take-down notice apply",
    )  # fmt: skip

    release: str = "auto"
    resolution: Count = 64
    crop: Count = 160
    grey: bool = False
    min_photos: Count = 30
    private_people: Whole = 0
    photos: Whole = 30
    public_people: Whole = 0
    public: Whole = 0
    evaluation_share: Share = 0.3
    heldout_share: Share = 0.2

    def needs(self) -> dict[str, tuple[str, ...]]:
        return {release: (archive,) for release, archive in ARCHIVES.items()}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        _stream.size(self.id, self.resolution)
        path = root / ARCHIVES[sources.release_of(self, root)]
        names = _stream.names(path)
        if not names or any(name.count("/") not in (1, 2) for name in names):
            raise UserError(f"{path}: expected pictures PERSON/PERSON_0001.jpg, in a folder or not")
        person = _people.numbered([name.split("/")[-2] for name in names])
        private = _people.frequent(person, self.min_photos, self.private_people, "data.lfw.min_photos")
        public = _people.others(person, private, self.public_people, rng, "data.lfw.public_people")
        shares = {"evaluation": self.evaluation_share, "heldout": self.heldout_share}
        parts, sides = _people.plan(person, private, public, rng, shares, self.photos, self.public)
        mode, channels = ("L", 1) if self.grey else ("RGB", 3)
        out.drop_shared()  # a few photos are in the set twice, under two names
        _stream.write(
            out, parts, _stream.items(path, {name: i for i, name in enumerate(names)}),
            lambda data, name: _images.decode(data, name, self.resolution, self.crop, mode, native=(250, 250)),
            (channels, self.resolution, self.resolution), sides,
        )  # fmt: skip
        out.meta(classes=len(private), private_people=len(private), public_people=len(public))
