"""KNN distance: how near a reconstruction comes to a private image of its class, in an evaluator's features.

KNN = 1/N sum_i min_{j: y_j = y_i} ||f_E(x_i) - f_E(t_j)||^2, squared, as in the code of KED-DMI, LOMMA and PPA
(their papers often write "L2"). f_E: the penultimate features of an evaluator that the attacker never sees.
Values of different evaluators do not compare: `normalised` puts them on the scale from held-out private
images of the same class (0) to images of other classes (1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Spec, check_features, check_labels

SPEC = Spec(
    "knn_distance",
    "KNN distance",
    digits=0,
    direction="lower",
    range=(0.0, float("inf")),
    kind="protocol",
    note=("squared distance, in the first evaluator's features, to the nearest private training image of the class"),
)


def knn_distance(features: Any, target: Any, private_features: Any, private_classes: Any) -> Tensor:
    """Squared distance to the nearest private image of the same class, per reconstruction.

    features: float (n, d), of reconstructions of classes `target` (n,). private_features: (m, d), of the
    private training images of classes `private_classes` (m,). Returns float64 (n,) >= 0; lower means more
    leakage. Raises `UserError` for other shapes, or a class without private images.

    >>> private = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    >>> knn_distance(torch.zeros(1, 2), [0], private, [0, 0, 1])
    tensor([1.], dtype=torch.float64)
    """
    f, own, p, theirs = checked(SPEC.id, features, target, private_features, private_classes)
    out = torch.empty(len(f), dtype=torch.float64, device=f.device)
    for label in own.unique():
        gap = torch.cdist(f[own == label], p[theirs == label], compute_mode="donot_use_mm_for_euclid_dist")
        out[own == label] = gap.square().amin(dim=1)
    return out


def length_and_direction(
    features: Any, target: Any, private_features: Any, private_classes: Any
) -> tuple[Tensor, Tensor]:
    """The two parts that make a distance large: too long features, and features that point elsewhere.

    Arguments as in `knn_distance`. Returns (length, cosine), float64 (n,) each: length of a reconstruction's
    features over the mean length of the class's private ones (above 1: the evaluator is surer than of any
    photograph), and the cosine with the private image of the class that points most alike.

    >>> private = torch.tensor([[3.0, 4.0], [5.0, 0.0], [0.0, 1.0]])
    >>> length_and_direction(torch.tensor([[10.0, 0.0]]), [0], private, [0, 0, 1])
    (tensor([2.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    f, own, p, theirs = checked(SPEC.id, features, target, private_features, private_classes)
    f, p = f.double(), p.double()
    length, cosine = f.norm(dim=1), torch.empty(len(f), dtype=torch.float64, device=f.device)
    for label in own.unique():
        private = p[theirs == label]
        length[own == label] /= private.norm(dim=1).mean().clamp_min(1e-12)
        directions = torch.nn.functional.normalize(f[own == label]) @ torch.nn.functional.normalize(private).T
        cosine[own == label] = directions.amax(dim=1)
    return length, cosine


def normalised(value: Any, same: float, other: float) -> Tensor:
    """(d - same) / (other - same): 0 is as near as held-out private images of the class, 1 as other classes.

    NaN where other classes are no farther than the same one: features that do not tell classes apart have no scale.

    >>> normalised([4.0], same=2.0, other=6.0)
    tensor([0.5000], dtype=torch.float64)
    """
    scale = other - same if other > same else torch.nan
    return (torch.as_tensor(value, dtype=torch.float64) - same) / scale


def checked(
    metric: str, features: Any, target: Any, private_features: Any, private_classes: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four inputs as tensors on one device; every class in `target` has private images."""
    f = check_features(features, metric, "features")
    p = check_features(private_features, metric, "private_features").to(f.device)
    if f.shape[1] != p.shape[1]:
        raise UserError(f"{metric}: features of one network have one width, got {f.shape[1]} and {p.shape[1]}")
    own = check_labels(target, len(f), metric, "target").to(f.device)
    theirs = check_labels(private_classes, len(p), metric, "private_classes").to(f.device)
    missing = sorted(set(own.tolist()) - set(theirs.tolist()))
    if missing:
        raise UserError(f"{metric}: no private images of classes {missing[:5]}: give those of every attacked class")
    return f, own, p, theirs
