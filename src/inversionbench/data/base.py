"""What a data set is to the rest of the project: four parts that open in milliseconds, and a card.

A file `data/<id>.py` defines one frozen dataclass derived from `DatasetSource`. Its fields are the options
that `params.yaml` may set; its class attribute `card` says source, terms, files and checksums. `prepare`
(module `inversionbench.data.prepare`) turns it into a folder of plain `.npy` arrays; every later step reads
only that folder, through `load`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.files import read_json, whole

if TYPE_CHECKING:  # NumPy, too: the command line reads cards before it chooses how NumPy shall compute
    import numpy as np
    import torch

PARTS = ("private", "public", "evaluation", "heldout")


@dataclass(frozen=True)
class File:
    """One declared input: where it lies below the data set's folder, its size and checksum, where to get it.

    `sha256` is of the file as downloaded, `content_sha256` of its decompressed content (for files that
    mirrors compress again); at least one is given where it is known. `count`: number of pictures, of a folder. `url` is
    None where terms need a form.
    """

    path: str
    sha256: str | None = None
    md5: str | None = None
    content_sha256: str | None = None
    size: int | None = None
    count: int | None = None
    url: str | None = None


@dataclass(frozen=True)
class Card:
    """What a person must know before using a data set (shown by `inversionbench data show`)."""

    name: str
    modality: str  # image | table | text | audio | graph, as the `modality` of a track
    source: str
    terms: str
    citation: str = ""
    files: tuple[File, ...] = ()
    manual_steps: str = ""
    notes: str = ""
    embedded: bool = False


@dataclass(frozen=True)
class Part:
    """One part of a data set; arrays are memory-mapped and read-only.

    `x`: images uint8 (n, channels, height, width); tables float32 (n, columns); audio float32 (n, samples);
    text str (n,). `y`: int64 (n,), the class (identity, label) in 0..classes-1, or -1 where public data has
    no class of the task. `extra`: further arrays of length n (identity, attributes, ...), by name.
    """

    x: np.ndarray
    y: np.ndarray
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def images(self, index: Any = slice(None)) -> torch.Tensor:
        """Images as float32 (n, channels, height, width) in [0, 1]."""
        import numpy as np
        import torch

        if self.x.dtype != np.uint8:
            raise TypeError(f"images() wants uint8 images, this part holds {self.x.dtype}{self.x.shape}")
        return torch.from_numpy(np.array(self.x[index])).float() / 255

    def tensor(self, index: Any = slice(None)) -> torch.Tensor:
        """`x` as a float32 tensor: images in [0, 1], anything else as it is."""
        import numpy as np
        import torch

        if self.x.dtype == np.uint8:
            return self.images(index)
        return torch.from_numpy(np.array(self.x[index], dtype=np.float32))

    def labels(self, index: Any = slice(None)) -> torch.Tensor:
        """`y` as an int64 tensor (n,)."""
        import numpy as np
        import torch

        return torch.from_numpy(np.array(self.y[index], dtype=np.int64))


@dataclass(frozen=True)
class Dataset:
    """A prepared data set.

    private: trains the target. public: what the attacker may use. evaluation: other samples of the private
    classes, trains the evaluators. heldout: private classes, trains nothing (utility and controls).
    No sample, and no identity where there are people, is in private and in public.
    """

    name: str
    classes: int
    shape: tuple[int, ...]  # of one x: (channels, height, width), (columns,), ...
    meta: dict[str, Any]  # options, split digest, column description of a table, ...
    private: Part
    public: Part
    evaluation: Part
    heldout: Part

    @property
    def digest(self) -> str:
        """sha256 over all arrays and the split: two data sets with one digest are the same data."""
        return self.meta["digest"]


@dataclass(frozen=True)
class DatasetSource:
    """Base of `data/<id>.py`: options as fields, `card`, and `build`, which writes the four parts.

    Subclasses are frozen dataclasses too. `build` may stream: see `inversionbench.data.prepare.Writer`.
    """

    id: ClassVar[str]
    card: ClassVar[Card]
    task: ClassVar[str] = "-"  # of a model trained on it, for people
    folders: ClassVar[tuple[str, ...]] = ()  # other names that its folder may have
    titles: ClassVar[Mapping[str, str]] = {}  # of its releases, for people

    def files(self) -> tuple[File, ...]:
        """The declared inputs: those of the card, unless options name others by absolute paths."""
        return self.card.files

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        """Write the parts into `out` (a `Writer`); `root` is the folder of the downloaded files, verified."""
        raise NotImplementedError


def load(folder: str | Path) -> Dataset:
    """Open a prepared folder. Arrays are memory-mapped, so this takes milliseconds at any size."""
    folder = Path(folder)
    meta = read_json(folder / "dataset.json", folder)
    parts = (load_part(folder, name) for name in PARTS)
    return Dataset(meta["name"], meta["classes"], tuple(meta["shape"]), meta, *parts)


def load_part(folder: str | Path, name: str) -> Part:
    """Open one part of a prepared folder; the attack step opens the public part and no other."""
    import numpy as np

    files = sorted((Path(folder) / name).glob("*.npy"))
    with whole(Path(folder) / name, Path(folder)):
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in files}
        return Part(arrays.pop("x"), arrays.pop("y"), arrays)
