"""ham10000: dermatoscopic pictures of pigmented skin lesions, 600x450 colour, 7 classes (survey: LDC).

10,015 images of 7,470 lesions. The survey's "8,000 training and 2,000 test images" is a split of one of the
works it cites, not an official one. Several images show one lesion, so everything is split by lesion: no
lesion is in two parts. Labels are known in public (the attacker holds other lesions of the same diseases);
classes are very unequal (nv 6,705 of 10,015).

Releases: "zip" (HAM10000_images_part_1.zip and part_2.zip), "folder" (the two folders they unpack to),
"lower" (these in small letters), "classes" (a folder of pictures for each class, akiec to vasc), with the
table as HAM10000_metadata.csv, .tab or without ending. Options: release, partial (take the pictures that are
there), resolution, public_share, evaluation_share, heldout_share. `extra`: `identity` (lesion), `index` (row
of the table).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share
from inversionbench.data import _formats, _images, _people, _split, _stream, sources
from inversionbench.data.base import Card, DatasetSource, File

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
ZIPS = ("HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip")
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
LOWER = tuple(name.lower() for name in FOLDERS)  # the same pictures once more in Kaggle's copy
TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")


@dataclass(frozen=True)
class Ham10000(DatasetSource):
    """HAM10000; options in the module docstring."""

    id = "ham10000"
    task = "7 diseases"
    card = Card(
        name="HAM10000",
        modality="image",
        source="P. Tschandl, Harvard Dataverse doi:10.7910/DVN/DBW86T",
        terms="CC BY-NC 4.0",
        citation="Tschandl, Rosendahl, Kittler: The HAM10000 dataset, Scientific Data 5, 2018",
        files=(
            File(ZIPS[0], md5="4639bfa73ab251610530a97c898e6e46", size=1366522108),
            File(ZIPS[1], md5="da43d6cc50f6613013be07e8986b384b", size=1403566547),
            *(File(name) for name in (*FOLDERS, *LOWER, *CLASSES, *TABLES)),
        ),
        manual_steps=(
            "from the Dataverse page download HAM10000_images_part_1.zip, HAM10000_images_part_2.zip and "
            "HAM10000_metadata into ham10000/"
        ),
        notes="rulers and hairs are recovered first; DermaMNIST is another set",
    )

    release: str = "auto"
    partial: bool = False
    resolution: Count = 64
    public_share: Share = 0.4
    evaluation_share: Share = 0.15
    heldout_share: Share = 0.1

    def needs(self) -> dict[str, tuple[str, ...]]:
        ends = ("", "_tab", "_plain")
        zips: dict[str, tuple[str, ...]] = {f"zip{end}": (*ZIPS, table) for end, table in zip(ends, TABLES)}
        kinds = {"folder": FOLDERS, "lower": LOWER, "classes": CLASSES}
        folders = {f"{kind}{end}": (*names, table) for kind, names in kinds.items() for end, table in zip(ends, TABLES)}
        return zips | folders

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        _stream.size(self.id, self.resolution)
        release = sources.release_of(self, root)
        *pictures, table = self.needs()[release]
        text = _formats.text((root / table).read_bytes(), str(root / table))
        delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ","
        rows = _formats.table(text, str(root / table), ("lesion_id", "image_id", "dx"), delimiter)
        places = [root / name for name in pictures]
        rows = _stream.kept(rows, lambda row: row["image_id"], places, self.partial, out)
        unknown = {row["dx"] for row in rows} - set(CLASSES)
        if unknown:
            raise UserError(f"{root / table}: unknown classes {', '.join(sorted(unknown))}")
        y = np.array([CLASSES.index(row["dx"]) for row in rows], np.int64)
        lesion = _people.numbered([row["lesion_id"] for row in rows])
        shares = {"public": self.public_share, "evaluation": self.evaluation_share}
        blocks = _split.blocks(lesion, rng, {**shares, "heldout": self.heldout_share}, y)
        out.drop_shared()
        _stream.write(
            out, {part: _split.robin(found, y, rng) for part, found in blocks.items()},
            _items(places, {row["image_id"]: i for i, row in enumerate(rows)}),
            lambda data, name: _images.decode(data, name, self.resolution),
            (3, self.resolution, self.resolution), {"y": y, "identity": lesion}, label=lambda i: rows[i]["image_id"],
        )  # fmt: skip
        out.meta(classes=len(CLASSES), class_names=list(CLASSES))


def _items(places: list[Path], number: dict[str, int]) -> Iterator[Any]:
    """Pictures of both archives or folders, found by the image id their file is named with."""
    for path in places:
        names = [name for name in _stream.names(path) if Path(name).stem in number]
        yield from _stream.items(path, {name: number[Path(name).stem] for name in names})
