"""IIP, the image identifiability precision (survey, section 5; Yin et al., CVPR 2021).

IIP = 1/B sum_b 1[argmin_{d in D} dist(R_b, d) = index of T_b]: how often the original that is nearest to a
reconstruction is the very image that was attacked, among a pool D of originals that contains it. The survey's
sentence turns this round (nearest among the reconstructions), a far easier test; this is the pool version.
Chance is 1 / pool size, so the pool is fixed and its size recorded; restricted to the class of the image it is
harder and labels alone no longer help. The paper measures distance on features of a pretrained network; here
pixels (L2) by default, or features of a given network (L2 or cosine). A neighbour that is pixel-identical to
the original counts as a hit: data sets hold duplicates. The mean image of a class can hit its most average
member: compare with the controls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Images, Scorer, Spec, Unavailable, check_features, check_images, check_labels

SPEC = Spec(
    "iip",
    "IIP",
    unit="%",
    digits=0,
    factor=100,
    direction="higher",
    range=(0.0, 1.0),
    kind="pair",
    needs="pool",
    note="share of reconstructions whose nearest original, among up to 1,000 private ones, is the attacked one",
)
SAME = 1e-5  # largest pixel difference of two copies of one image


def iip(
    reconstruction: Images,
    pool: Images,
    index: Any,
    features: Callable[[Tensor], Tensor] | None = None,
    distance: str = "l2",
    classes: Any = None,
    pool_classes: Any = None,
) -> Tensor:
    """Hit (1) or miss (0) per reconstruction; the mean is IIP.

    reconstruction: float (n, channels, height, width) in [0, 1]. pool: (m, channels, height, width).
    index: (n,) place of each original in the pool. features: images -> (n, d), else pixels. distance: "l2"
    or "cosine". classes (n,), pool_classes (m,): search only originals of the same class. Returns float64
    (n,); higher means more leakage. Raises `UserError` for other shapes, types or values.

    >>> pool = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    >>> iip(torch.tensor([0.4, 0.6], dtype=torch.float64).view(2, 1, 1, 1), pool, [0, 0])
    tensor([1., 0.], dtype=torch.float64)
    """
    r, d = check_images(reconstruction, "iip", "reconstruction"), check_images(pool, "iip", "pool")
    if r.shape[1:] != d.shape[1:]:
        raise UserError(f"iip: reconstruction {tuple(r.shape)} and pool {tuple(d.shape)} differ in image shape")
    place = check_labels(index, len(r), "iip", "index").to(d.device)
    if place.min() < 0 or place.max() >= len(d):
        raise UserError(f"iip: index must lie in 0..{len(d) - 1}, got {int(place.min())}..{int(place.max())}")
    gap = _distances(_embed(r.to(d.device), features), _embed(d, features), distance)
    if (classes is None) != (pool_classes is None):
        raise UserError("iip: give both classes and pool_classes, or neither")
    if classes is not None:
        own = check_labels(classes, len(r), "iip", "classes").to(d.device)
        theirs = check_labels(pool_classes, len(d), "iip", "pool_classes").to(d.device)
        gap = torch.where(own[:, None] == theirs[None], gap, torch.inf)
    nearest = gap.argmin(dim=1)
    return ((d[nearest] - d[place]).abs().amax(dim=(1, 2, 3)) < SAME).double()


def places(truth: Images, pool: Images) -> Tensor:
    """Where each original stands in the pool: int64 (n,). `UserError` if one is missing."""
    t, d = check_images(truth, "iip", "truth"), check_images(pool, "iip", "pool")
    known: dict[bytes, int] = {}
    for i, image in enumerate(d):
        known.setdefault(_key(image), i)
    found = [known.get(_key(image), -1) for image in t]
    if -1 in found:
        raise UserError(
            f"iip: {found.count(-1)} of {len(t)} originals are not in the pool (the first is number "
            f"{found.index(-1)}): the pool must contain the attacked images, in the same scale"
        )
    return torch.tensor(found)


def _key(image: Tensor) -> bytes:
    """An image as bytes, at 16 bits per pixel, so that float32 and float64 copies of it agree."""
    return (image * 65535).round().int().cpu().numpy().tobytes()


def _embed(images: Tensor, features: Callable[[Tensor], Tensor] | None) -> Tensor:
    if features is None:
        return images.flatten(1)
    return check_features(features(images.float()), "iip", "features").to(images.device)


def _distances(a: Tensor, b: Tensor, distance: str) -> Tensor:
    if distance == "l2":
        return torch.cdist(a, b)
    if distance == "cosine":
        unit = torch.nn.functional.normalize
        return 1 - unit(a, dim=1) @ unit(b, dim=1).T
    raise UserError(f"iip: distance must be 'l2' or 'cosine', got {distance!r}")


def _scorer(t: Tensor, context: Mapping[str, Any], notes: dict[str, Any]) -> Scorer | Unavailable:
    if context["pool"] is None:
        return Unavailable("iip needs a pool of originals that contains the attacked images")
    pool = check_images(context["pool"], "iip", "pool").to(t.device)
    index = places(t, pool)
    notes |= {"iip_pool": len(pool), "iip_distance": "pixels, l2, all classes"}
    return lambda x, y, block: {"iip": iip(y, pool, index[block])}


SCORERS = {"iip": _scorer}
