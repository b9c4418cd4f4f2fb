"""cifar10: 50,000 + 10,000 colour images 32x32, ten classes (survey section 6).

Releases: "python" (cifar-10-python.tar.gz), "folder" (the same unpacked) and "jpeg" (all images re-encoded as
JPEG, `train/CLASS/NNNN.jpg` in cifar10_jpeg.tar.gz). The JPEG pixels differ from the original ones, so its
results are reported as "CIFAR-10 (JPEG)", and reconstructions are compared with the JPEG pixels. Their
artefacts at block borders make total-variation priors look better.

Parts, options and `extra` as those of `mnist`; release: which one to read ("auto": the first that is there).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _cifar, _classed, _images, _stream, sources
from inversionbench.data.base import Card, DatasetSource, File

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))


@dataclass(frozen=True)
class Cifar10(DatasetSource):
    """CIFAR-10; options as those of MNIST, and `release`."""

    id = "cifar10"
    task = "10 objects"
    folders = ("cifar10_jpeg", ".")
    titles = {"jpeg": "CIFAR-10 (JPEG)"}
    card = Card(
        name="CIFAR-10",
        modality="image",
        source="A. Krizhevsky, www.cs.toronto.edu/~kriz/cifar.html",
        terms="no formal licence; cite Krizhevsky 2009",
        citation="Krizhevsky: Learning multiple layers of features from tiny images, 2009",
        files=(
            File(
                ARCHIVE, md5="c58f30108f718f92721af3b95e74349a", size=170498071,
                url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            ),
            File(f"{FOLDER}/data_batch_1", md5="c99cafc152244af753f735de768cd75f"),
            File(f"{FOLDER}/data_batch_2", md5="d4bba439e000b95fd0a9bffe97cbabec"),
            File(f"{FOLDER}/data_batch_3", md5="54ebc095f3ab1f0389bbae665268c751"),
            File(f"{FOLDER}/data_batch_4", md5="634d18415352ddfa80567beed471001a"),
            File(f"{FOLDER}/data_batch_5", md5="482c414d41f54cd18b22e5b47cb7c3cb"),
            File(f"{FOLDER}/test_batch", md5="40351d587109b95175f43aff81a1287e"),
            File(
                "cifar10_jpeg.tar.gz", size=19214839,
                sha256="0adeec936d3e44b8fec1f1aa3ffc539c4e9b6202462c63a8fb441b59b9d7bb07",
            ),
        ),
        manual_steps="put cifar-10-python.tar.gz (or its folder cifar-10-batches-py) into cifar10/",
        notes="the JPEG release is lossy and has its own name in every table",
    )  # fmt: skip

    release: str = "auto"
    resolution: Count = 32
    private_classes: tuple[Whole, ...] = (0, 1, 2, 3, 4)
    protocol: str = "classes"
    evaluation_share: Share = 0.5
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def needs(self) -> dict[str, tuple[str, ...]]:
        batches = tuple(f"{FOLDER}/{name}" for name in (*BATCHES, "test_batch"))
        return {"python": (ARCHIVE,), "folder": batches, "jpeg": ("cifar10_jpeg.tar.gz",)}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        if sources.release_of(self, root) == "jpeg":
            self._jpeg(root / "cifar10_jpeg.tar.gz", out, rng)
            return
        private = _classed.private_classes(self, len(CLASSES))
        x, y = _cifar.batches(self, root, ARCHIVE, FOLDER, (*BATCHES, "test_batch"), ("labels",))
        train = len(y) * 5 // 6
        plan = _classed.plan(self, y[:train], y[train:], CLASSES, private, rng)
        _classed.write(out, plan, lambda rows: _images.fit(x[rows], self.resolution))

    def _jpeg(self, path: Path, out: Any, rng: np.random.Generator) -> None:
        """The tree of JPEG files, numbered by sorted name: training images first."""
        found = [n.split("/") for n in _stream.names(path)]
        if not found or not all(len(n) == 3 and n[0] in ("train", "test") and n[1] in CLASSES for n in found):
            raise UserError(f"{path}: expected members train/CLASS/NNNN.jpg and test/CLASS/NNNN.jpg")
        ordered = sorted(found, key=lambda n: (n[0] == "test", n))
        labels = np.array([CLASSES.index(n[1]) for n in ordered], np.int64)
        train = sum(n[0] == "train" for n in ordered)
        private = _classed.private_classes(self, len(CLASSES))
        plan = _classed.plan(self, labels[:train], labels[train:], CLASSES, private, rng)
        out.drop_shared()
        _stream.write(
            out, plan.parts, _stream.items(path, {"/".join(n): i for i, n in enumerate(ordered)}),
            lambda data, name: _images.decode(data, name, self.resolution),
            (3, self.resolution, self.resolution), plan.sides,
        )  # fmt: skip
        _classed.about(out, plan)
