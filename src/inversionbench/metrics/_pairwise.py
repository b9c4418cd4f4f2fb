"""Per-image scores of reconstructions that have a paired original, in one call and in bounded memory.

Order of work, the same for every metric: reconstructions with pixels that are not finite are failures and are
replaced by uniform noise (the score of knowing nothing; never dropped); the others are clamped to [0, 1] and
the share of clipped pixels is recorded; with `match` the batch order is found once, by mean squared error;
then every metric is computed per image, in chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core import registry
from inversionbench.core.errors import UserError, suggest
from inversionbench.metrics._aggregate import summarise
from inversionbench.metrics._matching import match_groups
from inversionbench.metrics.base import (
    Images,
    Scorer,
    Unavailable,
    check_images,
    check_same_shape,
    check_shape,
    too_small,
)
from inversionbench.metrics.psnr import CAP

BUDGET = 1 << 18  # values of one chunk: FSIM holds about 100 float64 per pixel of it at its peak


@dataclass(frozen=True)
class PairScores:
    """What `pairwise` returns.

    values: name -> float64 (n,), in the order of `truth`; NaN where a metric is undefined for an image.
    unavailable: name -> reason, for metrics that could not be computed at all. permutation: int64 (n,), the
    reconstruction that was compared with each original, None when not matched. clipped: share of pixels of
    the finite reconstructions that lay outside [0, 1]. failed: bool (n,), original whose reconstruction was
    not finite. capped: how many PSNR values stand at the cap. groups: the batch of each original, if given.
    notes: settings that a reader needs (LPIPS size, pool size, ...).
    """

    values: dict[str, np.ndarray]
    unavailable: dict[str, Unavailable]
    permutation: np.ndarray | None
    clipped: float
    failed: np.ndarray
    capped: int
    groups: np.ndarray | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.failed)

    @property
    def failures(self) -> int:
        return int(self.failed.sum())

    def __getitem__(self, name: str) -> np.ndarray | Unavailable:
        """Values of one metric, or the reason why there are none."""
        return self.values[name] if name in self.values else self.unavailable[name]

    def record(self, targets: Any = None, seed: int = 0, per_image: bool = False) -> dict[str, Any]:
        """Plain JSON: a summary per metric (interval over `targets`, by default over images).

        With `per_image` also the values, None where undefined.
        """
        metrics: dict[str, Any] = {
            name: summarise(v, targets, seed, share=name == "iip").record() for name, v in self.values.items()
        }
        metrics |= {name: {"unavailable": gone.reason} for name, gone in self.unavailable.items()}
        out = {
            "metrics": metrics,
            "n": len(self),
            "matched": self.permutation is not None,
            "clipped": self.clipped,
            "failures": self.failures,
            "capped": self.capped,
            **({"notes": self.notes} if self.notes else {}),
        }
        if per_image:
            out["values"] = {
                name: [None if np.isnan(v) else float(v) for v in values]
                for name, values in self.values.items()
            }
        return out


def pairwise(
    truth: Images,
    reconstruction: Images,
    names: tuple[str, ...] | list[str] = ("mse", "psnr", "ssim"),
    match: bool = False,
    features: Callable[[Tensor], Any] | None = None,
    weights: str | Path | None = None,
    chunk: int | None = None,
    *,
    groups: Any = None,
    prior: Images | None = None,
    pool: Images | None = None,
    net: str = "alex",
    seed: int = 0,
) -> PairScores:
    """Scores of reconstructions against their originals, image by image.

    truth: float (n, channels, height, width) in [0, 1]. reconstruction: the same shape, any values.
    names: metrics of kind "pair". match: find the order first; then `groups` (n,) names the batch of each image (one
    batch if not given). features: images -> list of feature maps (n, c_l, h_l, w_l) of an evaluator, for
    `lpips_like`, which is named after its attribute `name`. weights: folder of pretrained weights, for
    `lpips` (backbone `net`). prior: for `rdlv`, one image (1, c, h, w), usually the public mean image, or one
    each (n, c, h, w). pool: originals (m, c, h, w) that contain every truth, for `iip`. chunk: images at a time;
    by default so many that a few hundred MiB suffice. seed: of the noise that stands for failed reconstructions.

    A metric that lacks its inputs, or wants larger images, is `Unavailable` with the reason; unknown names,
    wrong shapes, a truth outside [0, 1] are `UserError`.

    >>> x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> scores = pairwise(x, x[[1, 0, 3, 2]], match=True)
    >>> scores.permutation, scores.values["psnr"]
    (array([1, 0, 3, 2]), array([60., 60., 60., 60.]))
    """
    known = [name for name, said in registry.quantities().items() if said.get("kind") == "pair"]
    for name in names:
        if name not in known:
            raise UserError(f"pairwise: unknown metric '{name}': {suggest(name, known)}")
    t, r = check_shape(truth, "pairwise", "truth"), check_shape(reconstruction, "pairwise", "reconstruction")
    check_same_shape(t, r, "pairwise")
    step = chunk or max(1, BUDGET // t[0].numel())
    blocks = [slice(i, i + step) for i in range(0, len(t), step)]
    for block in blocks:
        check_images(t[block], "pairwise", "truth")
    r, failed, clipped = _repair(r.to(t.device), blocks, seed)
    permutation = None
    if match:
        permutation = match_groups(t, r, np.zeros(len(t), dtype=np.int64) if groups is None else groups)
        r, failed = r[torch.as_tensor(permutation, device=r.device)], failed[permutation]

    context = {"features": features, "weights": weights, "prior": prior, "pool": pool, "net": net}
    scorers, unavailable, notes = _scorers(t, names, context)
    values, undefined = _run(scorers, t, r, blocks)
    capped = int((values["psnr"] >= CAP).sum()) if "psnr" in values else 0
    return PairScores(
        values=values,
        unavailable=unavailable | undefined,
        permutation=permutation,
        clipped=clipped,
        failed=failed,
        capped=capped,
        groups=None if groups is None else np.asarray(groups),
        notes=notes,
    )


def _repair(r: Tensor, blocks: list[slice], seed: int) -> tuple[Tensor, np.ndarray, float]:
    """Reconstructions clamped and failures replaced by noise; which failed; the share of clipped pixels."""
    out, failed, outside, pixels = torch.empty_like(r), [], 0, 0
    for block in blocks:
        finite = torch.isfinite(r[block]).all(dim=3).all(dim=2).all(dim=1)
        good = r[block][finite]
        outside += int(((good < 0) | (good > 1)).sum())
        pixels += good.numel()
        out[block] = r[block].clamp(0, 1)
        failed.append(~finite.cpu().numpy())
    lost = np.concatenate(failed)
    if lost.any():
        noise = np.random.default_rng(seed).random((int(lost.sum()), *r.shape[1:]), dtype=np.float32)
        out[torch.from_numpy(lost).to(r.device)] = torch.from_numpy(noise).to(r)
    return out, lost, outside / pixels if pixels else 0.0


def repaired(reconstruction: Images, seed: int = 0) -> Tensor:
    """Reconstructions as every metric sees them: failures replaced by noise, the others clamped to [0, 1]."""
    r = check_shape(reconstruction, "pairwise", "reconstruction")
    return _repair(r, [slice(0, len(r))], seed)[0]


def _run(
    scorers: dict[str, Scorer], t: Tensor, r: Tensor, blocks: list[slice]
) -> tuple[dict[str, np.ndarray], dict[str, Unavailable]]:
    parts: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for block in blocks:
            x, y = t[block].double(), r[block].double()
            for scorer in scorers.values():
                for name, value in scorer(x, y, block).items():
                    parts.setdefault(name, []).append(value.cpu().numpy().astype(np.float64))
    values = {name: np.concatenate(part) for name, part in parts.items()}
    gone = {
        name: Unavailable(f"{name} is undefined for all {len(v)} images")
        for name, v in values.items()
        if not np.isfinite(v).any()
    }
    kept = {n: np.where(np.isfinite(v), v, np.nan) for n, v in values.items() if n not in gone}
    return kept, gone


def _scorers(
    t: Tensor, names: tuple[str, ...] | list[str], context: dict[str, Any]
) -> tuple[dict[str, Scorer], dict[str, Unavailable], dict[str, Any]]:
    """How to compute each metric; the metrics that cannot be computed; the settings to note."""
    scorers: dict[str, Scorer] = {}
    unavailable: dict[str, Unavailable] = {}
    notes: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        module = import_module(registry.quantities()[name]["module"])
        reason, make = too_small(t, module.SPEC), getattr(module, "SCORERS", {}).get(name)
        if reason:
            made: Scorer | Unavailable = Unavailable(reason)
        else:
            made = make(t, context, notes) if make else _plain(name, module)
        if isinstance(made, Unavailable):
            unavailable[name] = made
        else:
            scorers[name] = made
    return scorers, unavailable, notes


def _plain(name: str, module: Any) -> Scorer:
    """A metric that wants the two images and nothing else: the function of its name."""
    function = getattr(module, name)
    return lambda x, y, block: {name: function(x, y)}
