"""photos: 32x32 colour crops of ten real photographs that installed packages carry. No download, no network.

A class is a source photograph. Its largest centred grid of square blocks (a third of the shorter side) is
coloured by (row + column) mod 3: colour 0 is private, the others are public, so private and public share
photographs but no pixel. A crop lies inside one block, takes 0.625 to 1 of its side (never less than
`resolution`), is shrunk by area averaging and flipped with probability 1/2. It is kept when the standard
deviation of its pixels around its own mean colour is at least `contrast`; after 40 refusals the best of them
is taken. Without this filter a flat image of the mean colour would already be a good reconstruction.

Evaluation and held-out crops are further crops of the private blocks: other samples, overlapping pixels. (On
public blocks, which train nothing, a network that is right on 98 % of held-out crops is right on 22 %, chance 10: an
unseen piece of a photograph is another task.) The held-out part is drawn last: its size moves no other part. No
crop occurs twice in the data set, mirrored or not. The order of each part is round robin over the classes, so
every prefix is balanced. Parts larger than a few hundred crops per class repeat nearly the same pixels.

`extra`: `box` int32 (n, 4), the crop as left, top, right, bottom in pixels of the photograph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, NonNegative
from inversionbench.data._order import round_robin
from inversionbench.data.base import Card, DatasetSource

if TYPE_CHECKING:
    from PIL import Image

# class name -> package, path in it, sha256 of the file
PHOTOGRAPHS = {
    "astronaut": (
        "skimage", "data/astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
    ),
    "coffee": (
        "skimage", "data/coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"
    ),
    "cat": (
        "skimage", "data/chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"
    ),
    "rocket": (
        "skimage", "data/rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"
    ),
    "retina": (
        "skimage", "data/retina.jpg", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6"
    ),
    "tissue": (
        "skimage", "data/ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"
    ),
    "motorcycle": (
        "skimage", "data/motorcycle_left.png",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
    "palace": (
        "sklearn", "datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
    "flower": (
        "sklearn", "datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
    ),
    "officer": (
        "matplotlib", "mpl-data/sample_data/grace_hopper.jpg",
        "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
    ),
}  # fmt: skip
Box = tuple[int, int, int, int]  # left, top, right, bottom
TRIES = 40
SMALLEST = 0.625  # side of the smallest crop, as a share of its block


@dataclass(frozen=True)
class Photos(DatasetSource):
    """Ten photographs, crops of disjoint blocks. `private` ... `heldout`: crops per class of each part."""

    id = "photos"
    task = "10 photographs"
    card = Card(
        name="Crops of ten embedded photographs",
        modality="image",
        source="sample images inside the installed scikit-image, scikit-learn and matplotlib packages",
        terms="public domain or CC0, except palace and flower: CC BY 2.0 (danielbuechele, vultilion)",
        notes="Class = photograph; private and public crops: disjoint blocks of the same photographs."
        " Astronaut and officer are portraits of public figures released by their agencies.",
        embedded=True,
    )

    resolution: Count = 32
    private: Count = 60
    public: Count = 240
    evaluation: Count = 150
    heldout: Count = 40
    contrast: NonNegative = 0.12

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        taken: list[set[Box]] = [set() for _ in PHOTOGRAPHS]
        pictures = [open_photograph(name) for name in PHOTOGRAPHS]
        for part in ("private", "public", "evaluation", "heldout"):
            per_class = getattr(self, part)
            x: list[np.ndarray] = []
            box: list[Box] = []
            for picture, used, stream in zip(pictures, taken, rng.spawn(len(pictures))):
                crops = self._crops(picture, part == "public", used, per_class, stream)
                for crop, where in crops:
                    x.append(crop)
                    box.append(where)
            y = np.tile(np.arange(len(pictures), dtype=np.int64), per_class)
            corners = np.array(box, dtype=np.int32)
            out.put(part, round_robin(np.stack(x), len(pictures)), y, box=round_robin(corners, len(pictures)))
        out.meta(classes=len(PHOTOGRAPHS), class_names=list(PHOTOGRAPHS))

    def _crops(
        self, picture: Image.Image, public: bool, used: set[Box], n: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, Box]]:
        """Yield n crops (3, resolution, resolution) uint8 with their boxes; `used` boxes are not repeated."""
        own = [block for block, colour in blocks(picture.size) if (colour > 0) == public]
        for _ in range(n):
            best, best_contrast, best_box = None, -1.0, (0, 0, 0, 0)
            for _ in range(TRIES):
                box = _box(own[rng.integers(len(own))], self.resolution, rng)
                if box in used:
                    continue
                x = shrink(picture, box, self.resolution)
                if contrast(x) > best_contrast:
                    best, best_contrast, best_box = x, contrast(x), box
                if best_contrast >= self.contrast:
                    break
            if best is None:
                raise UserError(f"photos: no new crop after {len(used)} of one photograph; ask for fewer")
            used.add(best_box)
            yield (best[:, :, ::-1] if rng.random() < 0.5 else best), best_box


def open_photograph(name: str) -> Image.Image:
    """The whole photograph as an RGB picture, after a check of the file's sha256."""
    from PIL import Image

    package, path, sha256 = PHOTOGRAPHS[name]
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [Path(folder) / path for folder in folders if (Path(folder) / path).is_file()]
    if not files:
        raise UserError(f"photos: '{path}' is not in the installed package '{package}'; reinstall {package}")
    got = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if got != sha256:
        raise UserError(f"photos: {files[0]} has sha256 {got}, not {sha256}; install the pinned {package}")
    return Image.open(files[0]).convert("RGB")


def blocks(size: tuple[int, int]) -> list[tuple[tuple[int, int, int], int]]:
    """The grid of a picture (width, height): ((left, top, side), colour), colour = (row + column) mod 3."""
    width, height = size
    side = min(width, height) // 3
    rows, columns = height // side, width // side
    left, top = (width - columns * side) // 2, (height - rows * side) // 2
    return [
        ((left + c * side, top + r * side, side), (r + c) % 3) for r in range(rows) for c in range(columns)
    ]


def shrink(picture: Image.Image, box: Box, resolution: int) -> np.ndarray:
    """Area average of one box, as uint8 (3, resolution, resolution). Pixels outside the box do not enter."""
    from PIL import Image

    small = picture.crop(box).resize((resolution, resolution), Image.Resampling.BOX)
    return np.asarray(small).transpose(2, 0, 1)


def contrast(x: np.ndarray) -> float:
    """Standard deviation of a picture (3, height, width) uint8 around its own mean colour, on [0, 1]."""
    return float(np.sqrt((x / 255.0).var(axis=(1, 2)).mean()))


def _box(block: tuple[int, int, int], resolution: int, rng: np.random.Generator) -> Box:
    left, top, side = block
    least = max(round(SMALLEST * side), resolution)
    if least > side:
        raise UserError(f"photos.resolution: {resolution} is more than the smallest block, {side} pixels")
    size = int(rng.integers(least, side + 1))
    across, down = rng.integers(0, side - size + 1, 2).tolist()
    return left + across, top + down, left + across + size, top + down + size
