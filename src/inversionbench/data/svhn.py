"""svhn: street view house numbers, colour images 32x32 of digits (format 2; survey section 6).

73,257 training, 26,032 test and 531,131 extra images (the survey's "600,000" is all three). Parts, options and
`extra` as those of `mnist`; use_extra: images of the public digits in extra_32x32.mat are public too (needs
that file, 1.3 GB). Label 10 of the files is the digit 0. Distractor digits stand at the sides; class 1 is
twice as frequent as class 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _classed, _formats, _images, _split
from inversionbench.data.base import Card, DatasetSource, File

SITE = "http://ufldl.stanford.edu/housenumbers/"


@dataclass(frozen=True)
class Svhn(DatasetSource):
    """SVHN; options as those of MNIST, and `use_extra`."""

    id = "svhn"
    folders = (".",)  # as torchvision lays it
    task = "10 digits"
    card = Card(
        name="SVHN",
        modality="image",
        source="Netzer et al., ufldl.stanford.edu/housenumbers",
        terms="non-commercial use only",
        citation="Netzer et al.: Reading digits in natural images with unsupervised feature learning, 2011",
        files=(
            File("train_32x32.mat", md5="e26dedcc434d2e4c54c9b2d4a06d8373", url=SITE + "train_32x32.mat"),
            File("test_32x32.mat", md5="eb5a983be6a315427106f1b164d9cef3", url=SITE + "test_32x32.mat"),
            File("extra_32x32.mat", md5="a93ce644f1a588dc4d68dda5feec44a7", url=SITE + "extra_32x32.mat"),
        ),
        manual_steps="put train_32x32.mat and test_32x32.mat (format 2) from the site into svhn/",
    )

    resolution: Count = 32
    private_classes: tuple[Whole, ...] = (0, 1, 2, 3, 4)
    protocol: str = "classes"
    use_extra: bool = False
    evaluation_share: Share = 0.5
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def needs(self) -> dict[str, tuple[str, ...]]:
        files = ("train_32x32.mat", "test_32x32.mat")
        return {"": (*files, "extra_32x32.mat") if self.use_extra else files}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        names = [str(digit) for digit in range(10)]
        private = _classed.private_classes(self, 10)
        read = [_read(root / path) for path in self.needs()[""]]
        x, y = (np.concatenate(arrays) for arrays in zip(*read))
        train, test = len(read[0][1]), len(read[1][1])
        plan = _classed.plan(self, y[:train], y[train : train + test], names, private, rng)
        plan.sides.update(label=y, y=_split.renumber(y, private))
        if self.use_extra:
            more = np.arange(train + test, len(y))
            more = more[np.isin(y[more], private, invert=self.protocol == "classes")]
            both = np.concatenate([plan.parts["public"], rng.permutation(more)])
            plan.parts["public"] = both[: self.public or None]
        _classed.write(out, plan, lambda rows: _images.fit(x[rows], self.resolution))


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 3, 32, 32) and digits int64 (n,) of one file, which holds X (32, 32, 3, n) and y."""
    found = _formats.mat(path, str(path), ("X", "y"))
    x, y = np.asarray(found["X"]), np.asarray(found["y"]).reshape(-1).astype(np.int64)
    if x.dtype != np.uint8 or x.shape != (32, 32, 3, len(y)):
        raise UserError(f"{path}: X is {x.dtype}{x.shape}; expected uint8 (32, 32, 3, {len(y)})")
    if len(y) and (y.min() < 0 or y.max() > 10):
        raise UserError(f"{path}: labels {y.min()}..{y.max()}; expected 1..10")
    return x.transpose(3, 2, 0, 1), y % 10
