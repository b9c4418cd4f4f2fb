"""Precision, recall, density, coverage of a set of reconstructions (protocol of PPA and VMI).

On features of an evaluator, with B(r, k) the ball around a real sample that reaches its k-th nearest real
neighbour: precision is the share of fakes inside some real ball, recall the share of reals inside some fake
ball (Kynkaanniemi et al., NeurIPS 2019); density the mean over fakes of (number of real balls that hold it) / k,
coverage the share of real balls that hold a fake (Naeem et al., ICML 2020). High precision and density:
reconstructions look like private images; high recall and coverage: like all of them. k = 3, per class and
then the mean over classes, as in PPA. Precision and recall move with single outliers; density and coverage
less. All depend on n and m: compare rows of equal numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Spec, Unavailable, check_features, check_labels

SPEC = Spec("prdc", "precision, recall, density, coverage", direction="higher", range=(0.0, float("inf")), kind="set")
PARTS = ("precision", "recall", "density", "coverage")


def prdc(real: Any, fake: Any, k: int = 3) -> dict[str, float] | Unavailable:
    """The four numbers for one set (or class).

    real: float features (n, d); fake: (m, d). k: neighbours, 1 <= k < n and k < m for recall. Returns
    precision, recall, coverage in [0, 1] and density in [0, n / k]; higher means more leakage. `Unavailable`
    with too few samples for k. Raises `UserError` for other shapes or values.

    >>> real = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    >>> prdc(real, torch.tensor([[0.5], [0.6], [20.0]]), k=1)
    {'precision': 0.6666666666666666, 'recall': 0.75, 'density': 1.3333333333333333, 'coverage': 0.5}
    """
    r, f = check_features(real, "prdc", "real features"), check_features(fake, "prdc", "fake features")
    if r.shape[1] != f.shape[1]:
        raise UserError(f"prdc: features of one network have one width, got {r.shape[1]} and {f.shape[1]}")
    if k < 1:
        raise UserError(f"prdc: k must be at least 1, got {k}")
    if min(len(r), len(f)) <= k:
        return Unavailable(f"prdc with k = {k} needs more than {k} images on both sides, got {len(r)} and {len(f)}")
    across = _gaps(r, f)
    in_real = across <= _radius(r, k)[:, None]
    in_fake = across <= _radius(f, k)[None]
    return {
        "precision": float(in_real.any(dim=0).double().mean()),
        "recall": float(in_fake.any(dim=1).double().mean()),
        "density": float(in_real.sum(dim=0).double().mean() / k),
        "coverage": float(in_real.any(dim=1).double().mean()),
    }


def prdc_per_class(
    real: Any, real_classes: Any, fake: Any, fake_classes: Any, k: int = 3
) -> dict[str, float] | Unavailable:
    """Mean over the classes of `fake_classes` (m,) of `prdc` within the class; `real_classes` (n,).

    Classes with too few samples are left out; their number is `left_out`, the others' `classes`.
    """
    r, f = check_features(real, "prdc", "real features"), check_features(fake, "prdc", "fake features")
    own = check_labels(real_classes, len(r), "prdc", "real_classes")
    theirs = check_labels(fake_classes, len(f), "prdc", "fake_classes")
    found, left_out = [], 0
    for label in theirs.unique().tolist():
        inside = r[own == label]
        value = prdc(inside, f[theirs == label], k) if len(inside) else Unavailable("none")
        if isinstance(value, Unavailable):
            left_out += 1
        else:
            found.append(value)
    if not found:
        return Unavailable(f"prdc with k = {k} needs more than {k} images on both sides in some class")
    mean = {part: sum(v[part] for v in found) / len(found) for part in PARTS}
    return mean | {"classes": float(len(found)), "left_out": float(left_out)}


def _gaps(a: Tensor, b: Tensor) -> Tensor:
    """Distances (n, m), exact where points coincide."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _radius(x: Tensor, k: int) -> Tensor:
    """Distance of each sample to its k-th nearest other sample: (n,)."""
    return _gaps(x, x).fill_diagonal_(0).kthvalue(k + 1, dim=1).values
