"""Data of one's own: where it lies, and how classes or people are dealt to the four parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data import _people, _split
from inversionbench.data._people import Sides
from inversionbench.data.base import PARTS, File


def place(path: str) -> Path:
    """Where the user's files lie: as given, `~` for home; relative to where the run starts."""
    return Path(path).expanduser().absolute()


def files(path: str) -> tuple[File, ...]:
    """The declared input of such a data set: an absolute path, which no data root comes before."""
    return (File(str(place(path))),)


def plan(source: Any, label: np.ndarray, rng: np.random.Generator) -> tuple[Sides, Sides, list[int]]:
    """(parts, sides, private classes) of samples with labels (n,) in 0..classes-1, by the options of the source:

    split        "class": `private_classes` of them are private (0: half), those with the most samples; all others are
                 public, so no class or person is on both sides. "sample": every class is private, and `public_share` of
                 its samples public.
    least        a private class has at least so many samples.
    evaluation_share, heldout_share   of the samples of a private class; the rest trains the target.
    public       at most so many public samples (0: all).
    """
    where = f"data.{source.id}"
    count = len(np.unique(label))
    shares = {"evaluation": source.evaluation_share, "heldout": source.heldout_share}
    if source.split == "class":
        wanted = source.private_classes or count // 2
        if wanted >= count:
            raise UserError(f"{where}.private_classes: {wanted} of {count} classes leaves none for public; take fewer, "
                            "or split: sample")  # fmt: skip
        private = _people.frequent(label, source.least, wanted, f"{where}.private_classes")
        public = [int(c) for c in np.setdiff1d(label, private)]
        parts, sides = _people.plan(label, private, public, rng, shares, limit=source.public)
    else:
        private = _people.frequent(label, source.least, count, f"{where}.least")
        dealt = _split.deal(np.arange(len(label)), label, rng, {**shares, "public": source.public_share})
        parts = {part: _split.robin(dealt[part], label, rng) for part in PARTS}
        parts["public"] = parts["public"][: source.public or None]
        sides = {"y": label.astype(np.int64)}  # no identities: public samples are of the same people
    for part in PARTS:
        if not len(parts[part]):
            raise UserError(f"{where}: no sample is left for the {part} part: {len(label)} samples of {count} classes "
                            "are too few for these shares")  # fmt: skip
    return parts, sides, private
