"""One data set from two: the private parts of the first, the public part of the second.

For attackers whose public data come from elsewhere (CelebA with a prior trained on FFHQ, MNIST with another
set of characters, CIFAR-10 with CIFAR-100), and for private sets that have no public part of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data._checks import RESERVED
from inversionbench.data.base import PARTS, Card, Dataset, load

if TYPE_CHECKING:
    from inversionbench.data._writer import Writer

def write(private: Dataset, public: Dataset, out: Writer) -> None:
    """Copy the parts; public labels become -1, and public identities are left out, since the numbers of two
    sets do not mean the same people. Public samples that are identical to private ones are dropped."""
    a, b = private.private, public.public
    if a.x.shape[1:] != b.x.shape[1:] or a.x.dtype.kind != b.x.dtype.kind:
        raise UserError(
            f"cannot combine {private.name} with x {a.x.dtype}{a.x.shape[1:]} and public {public.name} with x "
            f"{b.x.dtype}{b.x.shape[1:]}: prepare both with the same resolution and number of channels"
        )
    for name in PARTS:
        part = getattr(public if name == "public" else private, name)
        x = out.array(name, "x", part.x.shape, part.x.dtype)
        for start in range(0, len(x), 1024):
            x[start : start + 1024] = part.x[start : start + 1024]
        x.flush()
        y = np.full(len(part), -1, np.int64) if name == "public" else part.y
        extra = {k: v for k, v in part.extra.items() if not (name == "public" and k == "identity")}
        out.side(name, y=y, **extra)
    out.drop_shared()
    facts = {key: value for key, value in private.meta.items() if key not in RESERVED and key != "classes"}
    used = {"name": public.name, "title": public.meta["title"], "digest": public.digest}
    out.meta(classes=private.classes, public_from={**used, "options": public.meta["options"]}, **facts)


def card(private: Dataset, public: Dataset) -> Card:
    """The card of both."""
    source, terms, citation = (
        f"{private.meta[key]}; public: {public.meta[key]}" for key in ("source", "terms", "citation")
    )
    title = f"{private.meta['title']} (public: {public.meta['title']})"
    return Card(title, private.meta["modality"], source, terms, citation)


def opened(folder: Path) -> Dataset:
    """A prepared folder; a `UserError` if it is none."""
    try:
        return load(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: not a prepared data set ({error})") from error
