"""Feature distance: to the centroid of the class, or to the paired original.

Three forms, each of which a table names. Class form ("Feat Dist" of GMI and its successors): squared distance
||f_E(x_i) - c_{y_i}||^2 to the mean c of the private training images of the class; squared as in KED-DMI's
code. Paired form (FMSE of gradient inversion and split inference): mean over features of the squared
difference to the original's. Cosine form (face embeddings): 1 - cos; two images show one person below a
threshold set to a false accept rate on public pairs. A blurry mean image wins the class form: show
`knn_distance` beside it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Spec, check_features, check_labels
from inversionbench.metrics.knn_distance import checked

SPEC = Spec(
    "feature_distance",
    "feature distance",
    digits=1,
    direction="lower",
    range=(0.0, float("inf")),
    kind="protocol",
    note=("squared distance, in the first evaluator's features, to the centre of the private images of the class"),
)


def feature_distance(features: Any, target: Any, private_features: Any, private_classes: Any) -> Tensor:
    """Class form: squared distance to the centroid of the class, per reconstruction.

    features: float (n, d), of reconstructions of classes `target` (n,). private_features: (m, d), of private
    training images of classes `private_classes` (m,). Returns float64 (n,) >= 0; lower means more leakage.
    Raises `UserError` for other shapes, or a class without private images.

    >>> feature_distance(torch.tensor([[3.0, 4.0]]), [0], torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), [0, 0])
    tensor([25.], dtype=torch.float64)
    """
    f, own, p, theirs = checked(SPEC.id, features, target, private_features, private_classes)
    out = torch.empty(len(f), dtype=torch.float64, device=f.device)
    for label in own.unique():
        out[own == label] = (f[own == label] - p[theirs == label].mean(0)).square().sum(dim=1)
    return out


def paired(features: Any, original: Any) -> Tensor:
    """Paired form: mean over d of (f(x_i) - f(t_i))^2; both float (n, d). Returns float64 (n,), 0 for equals."""
    f, o = _pair(features, original)
    return (f - o).square().mean(dim=1)


def cosine(features: Any, original: Any) -> Tensor:
    """Cosine form: 1 - cos(f(x_i), f(t_i)); both float (n, d). Returns float64 (n,) in [0, 2].

    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    tensor([1.], dtype=torch.float64)
    """
    f, o = (torch.nn.functional.normalize(x, dim=1) for x in _pair(features, original))
    return 1 - (f * o).sum(dim=1).clamp(-1, 1)


def cosine_threshold(features: Any, identities: Any, rate: float = 1e-3) -> float:
    """The cosine distance below which a share `rate` of pairs of different people falls.

    features: float (n, d) of public images of people `identities` (n,), at least two people. Raises
    `UserError` if there are fewer than 1 / rate pairs: the threshold would be a guess.
    """
    f = check_features(features, SPEC.id, "features")
    who = check_labels(identities, len(f), SPEC.id, "identities").to(f.device)
    unit = torch.nn.functional.normalize(f, dim=1)
    upper = torch.triu(who[:, None] != who[None], diagonal=1)
    gaps = (1 - unit @ unit.T)[upper]
    if len(gaps) * rate < 1:
        raise UserError(
            f"feature_distance: {len(gaps)} pairs of different people cannot show a rate of {rate:g}; "
            f"at least {int(1 / rate + 0.5)} are needed"
        )
    return float(gaps.kthvalue(int(len(gaps) * rate)).values)


def _pair(features: Any, original: Any) -> tuple[Tensor, Tensor]:
    f = check_features(features, SPEC.id, "features")
    o = check_features(original, SPEC.id, "original").to(f.device)
    if f.shape != o.shape:
        raise UserError(f"feature_distance: expected one shape, got {tuple(f.shape)} and {tuple(o.shape)}")
    return f, o
