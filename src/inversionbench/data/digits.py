"""digits: scikit-learn's 1797 handwritten digits, grey 8x8 with 17 levels, enlarged. No download, no network.

Private digits 0-4 and public digits 5-9 by default, as in the generative attacks' use of MNIST; protocol
"samples" makes all ten private and gives the attacker other images of them. The set has no official test
part: the last 450 images, by the source's order (other writers), are held out.

Options as of `mnist`: resolution (bicubic enlargement of the 8x8 image), private_classes, protocol,
evaluation_share, and the largest number of images of each part (0: all).
`extra`: `label` (the digit), `index` (position in scikit-learn's set).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _classed
from inversionbench.data.base import Card, DatasetSource

HELD = 450


@dataclass(frozen=True)
class Digits(DatasetSource):
    """Small digits; options in the module docstring."""

    id = "digits"
    task = "10 digits"
    card = Card(
        name="Optical recognition of handwritten digits (test part)",
        modality="image",
        source="inside the installed scikit-learn package; UCI repository, id 80",
        terms="CC BY 4.0",
        citation="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI 1998",
        notes="64 numbers enlarged: a reconstruction's fine detail means nothing. The mean image is already near.",
        embedded=True,
    )

    resolution: Count = 32
    private_classes: tuple[Whole, ...] = (0, 1, 2, 3, 4)
    protocol: str = "classes"
    evaluation_share: Share = 0.5
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        from sklearn.datasets import load_digits

        source = load_digits()
        images = np.rint(source.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
        train, test = np.split(source.target.astype(np.int64), [-HELD])
        names = [str(digit) for digit in range(10)]
        private = _classed.private_classes(self, len(names))
        plan = _classed.plan(self, train, test, names, private, rng)
        _classed.write(out, plan, lambda rows: enlarge(images[rows], self.resolution))


def enlarge(images: np.ndarray, resolution: int) -> np.ndarray:
    """Grey images uint8 (n, height, width) -> (n, 1, resolution, resolution), bicubic."""
    from PIL import Image

    size = (resolution, resolution)
    large = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in images]
    return np.stack(large)[:, None]
