"""imagenet: ILSVRC-2012, 1,000 classes, photographs of varying size (survey section 6).

Labels are positions in the sorted list of WordNet ids, the order of all published classifiers. Protocol of
gradient inversion: validation images are the client's batches. The 50 validation images of a class are dealt
to private, public, evaluation and heldout. With use_train the training images of each class are dealt to
private, public and evaluation, and the validation images are held out. Published weights have seen all
training images.

Options: resolution, resize (shorter side before the centred crop, in pixels; 0: 8/7 of the resolution, as
256 for 224), use_train, classes (the first so many, 0: all), public_share, evaluation_share, heldout_share
(the last without use_train), private, public, evaluation, heldout (largest number of images, 0: all).
`extra`: `index` (number of the validation image; training images count on from 50,000 in archive order).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _archives, _classed, _formats, _images, _split, _stream
from inversionbench.data.base import PARTS, Card, DatasetSource, File

TRAIN, VAL, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
TRAIN_LIMITS = _archives.Limits(members=2_000_000)
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META = "ILSVRC2012_devkit_t12/data/meta.mat"


@dataclass(frozen=True)
class Imagenet(DatasetSource):
    """ILSVRC-2012; options in the module docstring."""

    id = "imagenet"
    folders = (".",)  # as torchvision lays it
    task = "1000 objects"
    card = Card(
        name="ImageNet (ILSVRC-2012)",
        modality="image",
        source="image-net.org",
        terms="non-commercial research and education, agreement on the site; images belong to their owners",
        citation="Russakovsky et al.: ImageNet large scale visual recognition challenge, IJCV 2015",
        files=(
            File(VAL, md5="29b22e2961454d5413ddabcf34fc5622"),
            File(KIT, md5="fa75699e90414af021442c21a62c3abf"),
            File(TRAIN, md5="1d675b47d978889d74fa0da5fadfb00e"),
        ),
        manual_steps=(
            "register at the site, put ILSVRC2012_img_val.tar (6.3 GB), ILSVRC2012_devkit_t12.tar.gz and, with "
            "use_train, ILSVRC2012_img_train.tar (138 GB) into imagenet/; do not unpack"
        ),
        notes="smaller stand-ins (Tiny-ImageNet, ImageNette) are other sets",
    )

    resolution: Count = 224
    resize: Whole = 0
    use_train: bool = False
    classes: Whole = 0
    public_share: Share = 0.3
    evaluation_share: Share = 0.2
    heldout_share: Share = 0.1
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"": (VAL, KIT, TRAIN) if self.use_train else (VAL, KIT)}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        _stream.size(self.id, self.resolution)
        ids, y, names = _labels(root / KIT)
        validation = len(y)
        if self.use_train:
            y, names = _with_train(root / TRAIN, ids, y, names)
        classes = min(self.classes or len(ids), len(ids))
        parts = self._split(y, validation, classes, rng)
        number = {name: i for i, name in enumerate(names)}
        _stream.write(
            out, parts, self._items(root, number), self._decode,
            (3, self.resolution, self.resolution), {"y": y},
        )  # fmt: skip
        out.drop_shared()
        out.meta(classes=classes, class_names=ids[:classes])

    def _split(
        self, y: np.ndarray, validation: int, classes: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        shares = {"public": self.public_share, "evaluation": self.evaluation_share}
        used = np.flatnonzero(y < classes)
        if self.use_train:
            parts = _split.deal(used[used >= validation], y, rng, shares)
            parts["heldout"] = used[used < validation]
        else:
            parts = _split.deal(used, y, rng, {**shares, "heldout": self.heldout_share})
        return _classed.limited(self, {part: _split.robin(parts[part], y, rng) for part in PARTS})

    def _decode(self, data: bytes, name: str) -> np.ndarray:
        """Shorter side to `resize`, then the centred square: the usual preparation of these images."""
        picture = _images.opened(data, name).convert("RGB")
        short = self.resize or round(self.resolution * 8 / 7)
        crop = round(min(picture.size) * self.resolution / max(short, self.resolution))
        return _images.square(picture, self.resolution, crop)

    def _items(self, root: Path, number: dict[str, int]) -> Iterator[Any]:
        yield from _stream.items(root / VAL, number)
        if self.use_train:
            for name, read in _archives.nested(root / TRAIN, TRAIN_LIMITS):
                if name in number:
                    yield number[name], read, f"{root / TRAIN}: {name}"


def _labels(kit: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """WordNet ids in the order of the labels, labels of the validation images, and their file names."""
    found = {n: read() for n, read in _archives.members(kit) if n in (TRUTH, META)}
    if len(found) != 2:
        raise UserError(f"{kit}: expected {TRUTH} and {META} in it")
    synsets = _formats.mat(found[META], f"{kit}: {META}", ("synsets",))["synsets"]
    leaves = [(int(s["ILSVRC2012_ID"]), str(s["WNID"])) for s in synsets if int(s["num_children"]) == 0]
    ids = sorted(wnid for _, wnid in leaves)
    label = {number: ids.index(wnid) for number, wnid in leaves}
    truth = _formats.text(found[TRUTH], f"{kit}: {TRUTH}").split()
    if not all(word.isdigit() and int(word) in label for word in truth):
        raise UserError(f"{kit}: {TRUTH} names classes that {META} does not have")
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, len(truth) + 1)]
    return ids, np.array([label[int(word)] for word in truth], np.int64), names


def _with_train(path: Path, ids: list[str], y: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Labels and names, those of the training images (WNID/NAME) appended in archive order."""
    label = {wnid: i for i, wnid in enumerate(ids)}
    found = [name for name, _ in _archives.nested(path, TRAIN_LIMITS)]
    strange = {name.split("/")[0] for name in found} - set(ids)
    if strange:
        raise UserError(f"{path}: classes that the devkit does not have: {', '.join(sorted(strange)[:3])}")
    return np.concatenate([y, np.array([label[n.split("/")[0]] for n in found], np.int64)]), names + found
