"""Damaged private photographs that a scenario of the classifier track hands to the attacker.

`protocol.hints`: photographs of each attacked class, from the private part, whose centre square of half the
side is removed before anything leaves the owner: the released pixels there are 0 and the mask says where. The
order is random and the labels are truth, unless `protocol.hint_labels` is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset

def damage(
    data: Dataset, subjects: int, protocol: Mapping[str, Any], seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is released and what is truth: "hints" uint8 (n, c, h, w), "hint_mask"; "hint_rows" and
    "hint_labels" int64 (n,)."""
    import numpy as np
    import torch

    from inversionbench.models.completion import hole

    if not protocol.get("hints"):
        return {}, {}
    rng = np.random.default_rng([seed, protocol["hints"]])
    y = np.asarray(data.private.y)
    rows = np.concatenate([rng.permutation(np.flatnonzero(y == c))[: protocol["hints"]] for c in range(subjects)])
    rows = rng.permutation(rows)
    mask = hole(*data.shape[1:])
    labels = torch.from_numpy(y[rows].astype(np.int64))
    released = {"hints": torch.from_numpy(data.private.x[rows]) * (1 - mask), "hint_mask": mask}
    if protocol.get("hint_labels"):
        released["hint_labels"] = labels
    return released, {"hint_rows": torch.from_numpy(rows), "hint_labels": labels}
