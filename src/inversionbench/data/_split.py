"""Dealing samples to the four parts. All functions work on row numbers and a seeded generator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data.base import PARTS

Rows = np.ndarray  # int64 (n,), numbers of samples in the source


def robin(rows: Rows, groups: np.ndarray, rng: np.random.Generator) -> Rows:
    """Rows in a random order in which the groups take turns, so that every prefix is balanced.

    groups: (n,) the group (class) of each row.
    """
    rows = rng.permutation(rows)
    of = groups[rows]
    turn = np.zeros(len(rows), np.int64)
    for group in np.unique(of):
        mine = of == group
        turn[mine] = np.arange(mine.sum())
    return rows[np.lexsort((of, turn))]


def deal(
    rows: Rows, groups: np.ndarray, rng: np.random.Generator, shares: Mapping[str, float]
) -> dict[str, Rows]:
    """Split rows group by group by the shares of `shares` (part -> share, sum at most 1; 'private' the rest).

    Rounding never takes the last row of a group from private.
    """
    check_shares(shares)
    out: dict[str, list[Rows]] = {part: [] for part in ("private", *shares)}
    for group in np.unique(groups[rows]):
        mine = rng.permutation(rows[groups[rows] == group])
        start = 0
        for part, share in shares.items():
            count = min(round(share * len(mine)), len(mine) - start - 1)
            out[part].append(mine[start : start + count])
            start += count
        out["private"].append(mine[start:])
    empty = np.empty(0, np.int64)
    return {part: np.concatenate([empty, *pieces]).astype(np.int64) for part, pieces in out.items()}


def blocks(
    groups: np.ndarray, rng: np.random.Generator, shares: Mapping[str, float], strata: np.ndarray | None = None
) -> dict[str, Rows]:
    """Split rows so that no group (patient, lesion) is in two parts: whole groups are dealt in random order.

    A group goes to the part that lacks most rows, which keeps the shares close to what was asked. strata: (n,)
    class of each row; the shares are kept in each class (a group counts where its first row stands).
    """
    check_shares(shares)
    wanted = {"private": 1 - sum(shares.values()), **shares}
    names, first, group, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    stratum = np.zeros(len(names), np.int64) if strata is None else strata[first]
    part_of = np.empty(len(names), np.int64)
    for kind in np.unique(stratum):
        mine = np.flatnonzero(stratum == kind)
        missing = np.array(list(wanted.values())) * counts[mine].sum()
        for i in rng.permutation(mine):
            part_of[i] = part = int(missing.argmax())
            missing[part] -= counts[i]
    return {part: np.flatnonzero(part_of[group.reshape(-1)] == i) for i, part in enumerate(wanted)}


def classed(
    train: np.ndarray,
    test: np.ndarray,
    private: Sequence[int],
    public: Sequence[int],
    rng: np.random.Generator,
    evaluation: float,
) -> dict[str, Rows]:
    """Parts of a set with official train and test labels; row numbers count test after train.

    With public classes: the training samples of the private classes are dealt to private and evaluation
    (share `evaluation`), their test samples are held out, and public gets all of the public classes. Without:
    all classes are private, half of the training samples are public, the rest is dealt as before.
    """
    y = np.concatenate([train, test]).astype(np.int64)
    first = np.arange(len(y)) < len(train)
    mine = np.isin(y, private)
    if len(public):
        out = deal(np.flatnonzero(first & mine), y, rng, {"evaluation": evaluation})
        out["public"] = np.flatnonzero(np.isin(y, public))
    else:
        shares = {"public": 0.5, "evaluation": evaluation / 2}
        out = deal(np.flatnonzero(first & mine), y, rng, shares)
    out["heldout"] = np.flatnonzero(~first & mine)
    return {part: robin(out[part], y, rng) for part in PARTS}


def limit(parts: Mapping[str, Rows], **most: int) -> dict[str, Rows]:
    """The first `most[part]` rows of each part (0: all)."""
    return {part: rows[: most.get(part) or None] for part, rows in parts.items()}


def renumber(y: np.ndarray, private: Iterable[int]) -> np.ndarray:
    """Labels of private classes as 0..K-1 in the order given, all others as -1; int64."""
    private = list(private)
    table = np.full(max([*private, int(y.max(initial=0))]) + 1, -1, np.int64)
    table[private] = np.arange(len(private))
    return table[y]


def check_shares(shares: Mapping[str, float]) -> None:
    total = sum(shares.values())
    if any(s < 0 for s in shares.values()) or total >= 1:
        text = ", ".join(f"{part} {share}" for part, share in shares.items())
        raise UserError(f"shares must be at least 0 and leave something for private: {text} sum to {total:g}")


def classes(where: str, given: Sequence[int], count: int) -> tuple[int, ...]:
    """The private classes an option names: distinct, in range, at least two."""
    chosen = tuple(given)
    fits = all(isinstance(c, int) and 0 <= c < count for c in chosen)
    if not fits or len(set(chosen)) != len(chosen) or len(chosen) < 2:
        raise UserError(f"{where}: expected two or more of 0..{count - 1}, got {chosen}")
    return chosen
