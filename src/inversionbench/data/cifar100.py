"""cifar100: 50,000 + 10,000 colour images 32x32, 100 classes in 20 superclasses (survey section 6).

Parts. protocol "superclasses": the classes of the private superclasses (five each) are private, numbered in
the order of their fine labels, all others public, so that no public class is a near relative of a private one
(apple and pear). "classes": `private_classes` (fine labels) are private. "samples": all 100 classes are
private, half of the training images public.

Further options: without_cifar10_classes drops public classes that show what a class of CIFAR-10 shows, for
use as auxiliary data of a CIFAR-10 target; the others as those of `mnist`. Releases: "python"
(cifar-100-python.tar.gz) and "folder" (unpacked). `extra`: `label` (fine), `coarse`, `index`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _cifar, _classed, _images, _pickles, _split
from inversionbench.data.base import Card, DatasetSource, File

FOLDER = "cifar-100-python"
ARCHIVE = "cifar-100-python.tar.gz"
# fine classes whose pictures show a class of CIFAR-10: automobile and truck, cat, dog, deer and horse
CIFAR10_LIKE = (
    "bus", "pickup_truck", "streetcar", "tank", "tractor", "leopard", "lion", "tiger", "fox", "wolf", "cattle",
)  # fmt: skip


@dataclass(frozen=True)
class Cifar100(DatasetSource):
    """CIFAR-100; options in the module docstring."""

    id = "cifar100"
    folders = (".",)  # as torchvision lays it
    task = "100 objects"
    card = Card(
        name="CIFAR-100",
        modality="image",
        source="A. Krizhevsky, www.cs.toronto.edu/~kriz/cifar.html",
        terms="no formal licence; cite Krizhevsky 2009",
        citation="Krizhevsky: Learning multiple layers of features from tiny images, 2009",
        files=(
            File(
                ARCHIVE, md5="eb9058c3a382ffc7106e4002c42a8d85", size=169001437,
                url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            ),
            File(f"{FOLDER}/train", md5="16019d7e3df5f24257cddd939b257f8d"),
            File(f"{FOLDER}/test", md5="f0ef6b0ae62326f3e7ffdfab6717acfc"),
            File(f"{FOLDER}/meta", md5="7973b15100ade9c7d40fb424638fde48"),
        ),
        manual_steps="put cifar-100-python.tar.gz (or its folder cifar-100-python) into cifar100/",
        notes="500 training images per class: nearest-neighbour distances are noisy",
    )  # fmt: skip

    release: str = "auto"
    resolution: Count = 32
    protocol: str = "superclasses"
    private_superclasses: tuple[Whole, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    private_classes: tuple[Whole, ...] = (0, 1, 2, 3, 4)
    without_cifar10_classes: bool = False
    evaluation_share: Share = 0.5
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"python": (ARCHIVE,), "folder": tuple(f"{FOLDER}/{name}" for name in ("train", "test", "meta"))}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        names = self._names(root)
        x, fine, coarse = _cifar.batches(
            self, root, ARCHIVE, FOLDER, ("train", "test"), ("fine_labels", "coarse_labels")
        )
        train = len(fine) * 5 // 6
        without = [names.index(name) for name in CIFAR10_LIKE] if self.without_cifar10_classes else []
        private = self._private(fine, coarse, len(names))
        plan = _classed.plan(self, fine[:train], fine[train:], names, private, rng, without)
        plan.sides["coarse"] = coarse
        _classed.write(out, plan, lambda rows: _images.fit(x[rows], self.resolution))

    def _private(self, fine: np.ndarray, coarse: np.ndarray, count: int) -> tuple[int, ...]:
        if self.protocol != "superclasses":
            return _classed.private_classes(self, count)
        where = f"data.{self.id}.private_superclasses"
        wanted = _split.classes(where, self.private_superclasses, int(coarse.max()) + 1)
        return tuple(int(c) for c in np.unique(fine[np.isin(coarse, wanted)]))

    def _names(self, root: Path) -> list[str]:
        """Names of the fine classes, from the release."""
        data, where = _cifar.member(self, root, ARCHIVE, FOLDER, "meta")
        meta = _pickles.loads(data, where, _pickles.ARRAYS)
        names = meta.get("fine_label_names") if isinstance(meta, dict) else None
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise UserError(f"{where}: no list of fine_label_names")
        return names
