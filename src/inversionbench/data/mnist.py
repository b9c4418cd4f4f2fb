"""mnist: handwritten digits, 60,000 + 10,000 grey images 28x28 (survey section 6).

Parts. protocol "classes", as in the generative attacks (GMI, KED-MI): the target learns the private digits
(default 0-4), the attacker's prior is trained on images of the other digits (labels -1). Training images of
the private digits are dealt to private and evaluation, so that an evaluator has seen none of the target's
images; in the papers both train on the same images. Their test images are held out. protocol "samples", as in
gradient inversion and split inference: all ten digits are private, half of the training images are public.

Options: resolution (28; 32 pads with black, other sizes are resized), private_classes (in the order of their
new labels), protocol, evaluation_share (of the training images that are not public), private, public,
evaluation, heldout (largest number of images of the part, classes taking turns; 0: all).
`extra`: `label` (the digit), `index` (position in the source, test images after training images).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _idx_pair
from inversionbench.data.base import Card, DatasetSource

MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"
MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c",
)  # fmt: skip
CONTENT = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)


@dataclass(frozen=True)
class Mnist(DatasetSource):
    """MNIST; options in the module docstring."""

    id = "mnist"
    task = "10 digits"
    folders = ("MNIST/raw", "mnist/MNIST/raw")  # as torchvision lays them
    card = Card(
        name="MNIST",
        modality="image",
        source="Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits",
        terms="no formal licence; commonly listed as CC BY-SA 3.0 (unverified)",
        citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998",
        files=_idx_pair.files(MIRROR, MD5, CONTENT),
        manual_steps="put the four *-ubyte.gz files (or the same unpacked, without .gz) into mnist/",
        notes="mostly black: an empty image has a high PSNR and SSIM. With five classes top-5 is 100 %.",
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
        _idx_pair.build(self, root, out, rng, [str(digit) for digit in range(10)])
