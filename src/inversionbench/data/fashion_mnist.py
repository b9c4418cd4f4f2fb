"""fashion_mnist: pictures of clothes, 60,000 + 10,000 grey images 28x28, ten balanced classes (section 6).

Parts, options and `extra` as those of `mnist`. Classes 0-4 hold three kinds of tops, so a split by class is
not equally hard on both sides; near-duplicates of pictures exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _idx_pair
from inversionbench.data.base import Card, DatasetSource

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
)  # fmt: skip
CONTENT = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)


@dataclass(frozen=True)
class FashionMnist(DatasetSource):
    """Fashion-MNIST; options as those of MNIST."""

    id = "fashion_mnist"
    folders = ("FashionMNIST/raw", "fashion_mnist/FashionMNIST/raw")  # as torchvision lays them
    task = "10 kinds of clothes"
    card = Card(
        name="Fashion-MNIST",
        modality="image",
        source="Zalando Research, github.com/zalandoresearch/fashion-mnist",
        terms="MIT",
        citation="Xiao, Rasul, Vollgraf: Fashion-MNIST, a novel image dataset, arXiv 1708.07747",
        files=_idx_pair.files(MIRROR, MD5, CONTENT),
        manual_steps="put the four *-ubyte.gz files (or the same unpacked, without .gz) into fashion_mnist/",
        notes="classes 0, 2, 4 and 6 look alike: good classifiers reach 90-94 %.",
    )  # fmt: skip

    resolution: Count = 28
    private_classes: tuple[Whole, ...] = (0, 1, 2, 3, 4)
    protocol: str = "classes"
    evaluation_share: Share = 0.5
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        _idx_pair.build(self, root, out, rng, CLASSES)
