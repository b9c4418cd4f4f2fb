"""chestxray8: frontal chest X-rays of the NIH Clinical Center, 1024x1024 grey (survey section 6).

The survey's set of 108,948 images was published as ChestX-ray14: 112,120 images of 30,805 patients, 14 text-
mined findings. As in GMI and KED-MI: images with exactly one of the private findings train a classifier of
findings, images without finding are public. Everything is split by patient: no patient is in two parts, and
patients with a private image give no public one.

Releases: "archives" (images_001.tar.gz ... images_012.tar.gz, read where they lie, one at a time), "folder"
(images/ with the unpacked PNG files), "folders" (images_001/ ... images_012/, as Kaggle gives them). Labels:
Data_Entry_2017.csv or the revision Data_Entry_2017_v2020.csv. Options: release, partial (take the pictures
that are there), resolution, findings (the private classes, in the order of their labels; default the eight of
the paper), public (number of images, 0: all), evaluation_share, heldout_share (of the private images).
`extra`: `identity` (patient), `index` (row of the table). Text markers (L/R, PORTABLE) dominate SSIM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _formats, _images, _split, _stream, sources
from inversionbench.data.base import Card, DatasetSource, File

MD5 = (
    "fe8ed0a6961412fddcbb3603c11b3698", "ab07a2d7cbe6f65ddd97b4ed7bde10bf", "2301d03bde4c246388bad3876965d574",
    "9f1b7f5aae01b13f4bc8e2c44a4b8ef6", "1861f3cd0ef7734df8104f2b0309023b", "456b53a8b351afd92a35bc41444c58c8",
    "1075121ea20a137b87f290d6a4a5965e", "b61f34cec3aa69f295fbb593cbd9d443", "442a3caa61ae9b64e61c561294d1e183",
    "09ec81c4c31e32858ad8cf965c494b74", "499aefc67207a5a97692424cf5dbeed5", "dc9fda1757c2de0032b63347a7d2895c",
)  # fmt: skip
ARCHIVES = tuple(f"images_{i:03d}.tar.gz" for i in range(1, 13))
FOLDERS = tuple(f"images_{i:03d}" for i in range(1, 13))  # as Kaggle gives them
TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
NONE = "No Finding"


@dataclass(frozen=True)
class Chestxray8(DatasetSource):
    """ChestX-ray8 (as ChestX-ray14); options in the module docstring."""

    id = "chestxray8"
    task = "8 findings"
    card = Card(
        name="ChestX-ray14",
        modality="image",
        source="NIH Clinical Center, nihcc.app.box.com/v/ChestXray-NIHCC",
        terms="no restriction of use; cite the paper, link the site, acknowledge the NIH Clinical Center",
        citation="Wang et al.: ChestX-ray8, CVPR 2017",
        files=(
            *(File(name, md5=md5) for name, md5 in zip(ARCHIVES, MD5)),
            File("images", count=112120),
            *(File(name) for name in FOLDERS),
            *(File(name) for name in TABLES),
        ),
        manual_steps=(
            "from the site download images_001.tar.gz ... images_012.tar.gz (42 GB) and Data_Entry_2017.csv "
            "into chestxray8/; do not unpack"
        ),
        notes="labels are mined from reports; ChestMNIST and the sample on other sites are other sets",
    )

    release: str = "auto"
    partial: bool = False
    resolution: Count = 64
    findings: tuple[str, ...] = (
        "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
        "Pneumothorax",
    )  # fmt: skip
    public: Whole = 10000
    evaluation_share: Share = 0.3
    heldout_share: Share = 0.15

    def needs(self) -> dict[str, tuple[str, ...]]:
        archives = {f"archives{suffix}": (*ARCHIVES, table) for suffix, table in zip(("", "_v2020"), TABLES)}
        folders = {f"folder{suffix}": ("images", table) for suffix, table in zip(("", "_v2020"), TABLES)}
        kaggle = {f"folders{suffix}": (*FOLDERS, table) for suffix, table in zip(("", "_v2020"), TABLES)}
        return archives | folders | kaggle

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        _stream.size(self.id, self.resolution)
        release = sources.release_of(self, root)
        table = root / self.needs()[release][-1]
        columns = ("Image Index", "Finding Labels", "Patient ID")
        rows = _formats.table(_formats.text(table.read_bytes(), str(table)), str(table), columns, ",")
        places = [root / place for place in self.needs()[release][:-1]]
        rows = _stream.kept(rows, lambda row: row["Image Index"], places, self.partial, out)
        if not all(row["Patient ID"].isdecimal() for row in rows):
            raise UserError(f"{table}: a patient without a number; get the table again")
        patient = np.array([int(row["Patient ID"]) for row in rows], np.int64)
        y = self._labels([row["Finding Labels"] for row in rows], table)
        parts = self._split(patient, y, rng)
        y[parts["public"]] = -1
        number = {row["Image Index"]: i for i, row in enumerate(rows)}
        out.drop_shared()
        _stream.write(
            out, parts, _items(places, number),
            lambda data, name: _images.decode(data, name, self.resolution, mode="L"),
            (1, self.resolution, self.resolution), {"y": y, "identity": patient},
            label=lambda i: rows[i]["Image Index"],
        )  # fmt: skip
        out.meta(classes=len(self.findings), class_names=list(self.findings))

    def _labels(self, texts: list[str], table: Path) -> np.ndarray:
        """Position of the only finding in `findings`; -1 without finding, -2 for images that are not used."""
        known = {finding for text in texts for finding in text.split("|")}
        for finding in self.findings:
            if finding not in known - {NONE}:
                raise UserError(f"data.chestxray8.findings: '{finding}': {suggest(finding, known - {NONE})}")
        code = {finding: i for i, finding in enumerate(self.findings)} | {NONE: -1}
        return np.array([code.get(text, -2) for text in texts], np.int64)

    def _split(self, patient: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        mine = np.flatnonzero(y >= 0)
        shares = {"evaluation": self.evaluation_share, "heldout": self.heldout_share}
        blocks = _split.blocks(patient[mine], rng, shares, y[mine])
        parts = {part: _split.robin(mine[rows], y, rng) for part, rows in blocks.items()}
        healthy = np.flatnonzero((y == -1) & ~np.isin(patient, patient[mine]))
        parts["public"] = rng.permutation(healthy)[: self.public or None]
        return parts


def _items(places: list[Path], number: dict[str, int]) -> Iterator[Any]:
    """Pictures of the archives, or of the folders they unpack to, by their file name."""
    for path in places:
        names = [name for name in _stream.names(path) if name.rsplit("/", 1)[-1] in number]
        yield from _stream.items(path, {name: number[name.rsplit("/", 1)[-1]] for name in names})
