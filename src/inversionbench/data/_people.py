"""Sets of people: private and public identities are disjoint, photos of a private person are dealt to parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data import _split
from inversionbench.data.base import PARTS

Sides = dict[str, np.ndarray]


def plan(
    person: np.ndarray,
    private: Sequence[int],
    public: Sequence[int],
    rng: np.random.Generator,
    shares: dict[str, float],
    photos: int = 0,
    limit: int = 0,
) -> tuple[dict[str, np.ndarray], Sides]:
    """Parts (sample numbers) and sides `y` (position in `private`, else -1) and `identity`.

    person: (n,) identity of each sample. shares: of a private person's photos that go to evaluation and
    heldout; the rest is private. photos: use at most the first so many photos of a private person (0: all).
    limit: at most so many public samples, people taking turns (0: all).
    """
    rows = np.flatnonzero(np.isin(person, private))
    if photos:
        rows = np.concatenate([rows[person[rows] == p][:photos] for p in private])
    parts = _split.deal(rows, person, rng, shares)
    parts["public"] = np.flatnonzero(np.isin(person, public))
    parts = {part: _split.robin(parts[part], person, rng) for part in PARTS}
    parts["public"] = parts["public"][: limit or None]
    return parts, {"y": _split.renumber(person, private), "identity": person.astype(np.int64)}


def frequent(person: np.ndarray, least: int, count: int, where: str) -> list[int]:
    """The people with at least `least` samples, the most frequent first, at most `count` (0: all of them).

    Equally frequent people stand in the order of their numbers. Returned in the order of their numbers.
    """
    names, counts = np.unique(person, return_counts=True)
    order = np.lexsort((names, -counts))
    found = [int(names[i]) for i in order if counts[i] >= least]
    if len(found) < max(2, count):
        raise UserError(f"{where}: {max(2, count)} people with {least} photos wanted, {len(found)} found")
    return sorted(found[: count or None])


def others(
    person: np.ndarray, private: Sequence[int], count: int, rng: np.random.Generator, where: str
) -> list[int]:
    """`count` people (0: all) that are not private, chosen at random."""
    rest = np.setdiff1d(np.unique(person), private)
    if len(rest) < count:
        raise UserError(f"{where}: {count} public people wanted, {len(rest)} are not private")
    return sorted(int(p) for p in rng.permutation(rest)[: count or None])


def numbered(names: Sequence[str]) -> np.ndarray:
    """Names of people as numbers, in the order of the sorted names: names are not kept."""
    return np.unique(np.asarray(names, np.str_), return_inverse=True)[1].astype(np.int64)
