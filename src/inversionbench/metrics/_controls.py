"""What reconstructions that know nothing would score: the scale on which the numbers of an attack are read.

`mean_image`: the mean of the public images. `random_image`: public images drawn at random. `uniform_noise`:
independent uniform pixels. `identical`: the originals themselves, the ceiling. Leakage is the difference to
the first two; an absolute value says little. Controls are matched as the attack was: matching alone raises
the score of images that know nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.metrics._pairwise import PairScores, pairwise
from inversionbench.metrics.base import Images, check_images, check_shape

CONTROLS = ("mean_image", "random_image", "uniform_noise", "identical")


def score_controls(
    truth: Images, public: Images | None, names: tuple[str, ...] | list[str], rng: np.random.Generator, **options: Any
) -> dict[str, PairScores]:
    """What `pairwise` gives for each control.

    truth: float (n, channels, height, width) in [0, 1]. public: (m, ...), m > 0, images the attacker may know;
    None takes other originals in their place, for truth sets that stand alone, and wants n > 1. names,
    options: as for `pairwise` (match, groups, features, prior, ...). Raises `UserError` for other shapes or
    values.

    >>> x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> controls = score_controls(x, None, ["psnr"], np.random.default_rng(0))
    >>> controls["identical"]["psnr"]
    array([60., 60., 60., 60.])
    """
    t = check_shape(truth, "controls", "truth")
    noise = torch.from_numpy(rng.random(tuple(t.shape), dtype=np.float32)).to(t)
    scores = {
        "uniform_noise": pairwise(t, noise, names, **options),
        "identical": pairwise(t, t, names, **options),
    }
    if public is not None:
        mean, drawn = _from_public(t, public, rng)
        scores["mean_image"] = pairwise(t, mean, names, **options)
        scores["random_image"] = pairwise(t, drawn, names, **options)
    else:
        # a mean that leaves out its own image must stay at its place: any other mean contains the image
        scores["mean_image"] = pairwise(t, mean_of_others(t), names, **(options | {"match": False}))
        drawn, groups = _from_others(t, rng, options.get("match", False), options.get("groups"))
        scores["random_image"] = pairwise(t, drawn, names, **(options | {"groups": groups}))
    return {control: scores[control] for control in CONTROLS}


def mean_of_others(t: Tensor) -> Tensor:
    """For each original the mean of all others: (n, channels, height, width)."""
    if len(t) < 2:
        raise UserError("controls: a single original needs public images to be compared with")
    total = t.double().sum(dim=0, keepdim=True)
    return ((total - t.double()) / (len(t) - 1)).clamp(0, 1).to(t)


def _from_public(t: Tensor, public: Images, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    p = check_images(public, "controls", "public")
    if p.shape[1:] != t.shape[1:]:
        raise UserError(f"controls: truth {tuple(t.shape)} and public {tuple(p.shape)} differ in image shape")
    drawn = torch.from_numpy(rng.integers(len(p), size=len(t)))
    return p.mean(dim=0, keepdim=True).to(t).expand_as(t), p[drawn.to(p.device)].to(t)


def _from_others(t: Tensor, rng: np.random.Generator, match: bool, groups: Any) -> tuple[Tensor, np.ndarray | None]:
    """Random other originals, and the groups to match them in.

    Matching would give every original itself back if it were among the images of its own batch, so a batch is
    filled with originals of other batches; a single batch is cut into two halves that lend to each other.
    """
    n = len(t)
    if not match:
        drawn = (np.arange(n) + rng.integers(1, n, size=n)) % n  # any original but its own
        return t[torch.from_numpy(drawn).to(t.device)], None
    names = np.zeros(n, dtype=np.int64) if groups is None else np.asarray(groups)
    if len(np.unique(names)) == 1:
        names = np.arange(n) * 2 // n
    others = {name: np.flatnonzero(names != name) for name in np.unique(names)}
    drawn = np.array([rng.choice(others[name]) for name in names])
    return t[torch.from_numpy(drawn).to(t.device)], names
