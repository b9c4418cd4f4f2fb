"""image_folder: pictures of your own, one folder for each class or person. No code.

    datasets:
      staff: {source: image_folder, path: ~/staff, resolution: 64}      # ~/staff/anna/1.jpg, ~/staff/ben/2.png, ...

path: the folder of the class folders; `~` and paths relative to where the run starts are fine. Pictures (JPEG, PNG,
PPM) are cut to their largest centred square and resized. Options of the split (`split`, `private_classes`,
`public_share`, `least`, `evaluation_share`, `heldout_share`, `public`): see `data._own`. Classes are numbers in all
results; the names of the folders are not kept. `extra`: `index`, and `identity` where classes are split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _images, _own, _people, _stream
from inversionbench.data.base import Card, DatasetSource, File


@dataclass(frozen=True)
class ImageFolder(DatasetSource):
    """Pictures of one's own; options in the module docstring."""

    id = "image_folder"
    task = "your classes"
    card = Card(
        name="Pictures of your own",
        modality="image",
        source="a folder of yours",
        terms="yours: results hold galleries of these pictures",
        notes="Private pictures of real people stay private only as long as results do.",
    )

    path: str
    resolution: Count = 64
    grey: bool = False
    split: Literal["class", "sample"] = "class"
    private_classes: Whole = 0
    least: Count = 5
    public_share: Share = 0.3
    evaluation_share: Share = 0.3
    heldout_share: Share = 0.2
    public: Whole = 0

    def files(self) -> tuple[File, ...]:
        return _own.files(self.path)

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        _stream.size(self.id, self.resolution)
        path = _own.place(self.path)
        names = _stream.names(path) if path.is_dir() else []
        if not names or any("/" not in name for name in names):
            flat = next((name for name in names if "/" not in name), "none")
            raise UserError(f"{path}: expected one folder of pictures for each class; outside of any: {flat}")
        label = _people.numbered([name.split("/")[0] for name in names])
        parts, sides, private = _own.plan(self, label, rng)
        mode, channels = ("L", 1) if self.grey else ("RGB", 3)
        out.drop_shared()
        _stream.write(
            out, parts, _stream.items(path, {name: i for i, name in enumerate(names)}),
            lambda data, name: _images.decode(data, name, self.resolution, mode=mode),
            (channels, self.resolution, self.resolution), sides,
        )  # fmt: skip
        out.meta(classes=len(private))
