"""FID, the Frechet inception distance (survey, section 5; Heusel et al., NeurIPS 2017).

FID = ||mu_r - mu_f||^2 + Tr(S_r + S_f - 2 (S_r S_f)^{1/2}), the squared Wasserstein-2 distance of two
Gaussians fitted to features of real and of reconstructed images (S with n - 1). In model inversion the real
set is the private images of the attacked classes. Features: the 2048 pooled outputs of the TensorFlow
Inception-v3 of 2015 at 299 x 299, through pytorch-fid; its weights are a declared input.

The trace of the root is computed as the sum of singular values of R_r R_f^T, where S = R^T R: no matrix root,
exact for singular covariances, and independent of what scipy's sqrtm becomes.

FID of finite samples is biased upwards, by about d^2 / 2n per side: compare only rows of equal n, want
n >= 10 d, and read it beside `floor`, the same distance between two halves of the real images. `fid_like` is the
same distance on the features of an evaluator of the pipeline (d <= 64 wanted), reported as `fid_like[E]`, never
compared with published FID.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.core.quantity import Quantity
from inversionbench.metrics._weights import sha256, verified
from inversionbench.metrics.base import (
    Images,
    Spec,
    Unavailable,
    as_value,
    check_features,
    check_images,
    check_shape,
)

SPEC = Spec(
    "fid",
    "FID",
    digits=1,
    direction="lower",
    range=(0.0, float("inf")),
    kind="set",
    weights=("inception",),
)
FURTHER = (
    Quantity(
        "fid_like",
        "FID-like",
        digits=2,
        direction="lower",
    ),
)
Features = Callable[[Tensor], Any]


def fid(
    truth: Images, reconstruction: Images, weights: str | Path | None = None, chunk: int = 32
) -> float | Unavailable:
    """FID between private images and reconstructions on Inception features.

    truth: float (n, channels, height, width) in [0, 1]; reconstruction: (m, ...); n, m >= 2, 1 or 3 channels.
    weights: folder of the Inception file (default: torch's own). Returns a float >= 0; lower means more
    leakage. `Unavailable` if the file is missing or not the declared one. Raises `UserError` for bad input.
    """
    real, fake = check_shape(truth, "fid", "truth"), check_shape(reconstruction, "fid", "reconstruction")
    network = load(weights)
    if isinstance(network, Unavailable):
        return network
    return _on_features(real, fake, lambda x: network(x.expand(-1, 3, -1, -1))[0].flatten(1), "fid", chunk)


def fid_like(truth: Images, reconstruction: Images, features: Features, chunk: int = 256) -> float | Unavailable:
    """The same distance on the features of an evaluator.

    truth, reconstruction: as for `fid`, any number of channels. features: float32 images (n, c, h, w) ->
    (n, d). Returns a float >= 0, or `Unavailable` with fewer than two images. Raises `UserError` for bad
    input.

    >>> x = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> round(fid_like(x, 0.5 * x + 0.5, lambda images: images.mean(dim=(2, 3))), 3)
    0.065
    """
    real, fake = check_shape(truth, "fid_like", "truth"), check_shape(reconstruction, "fid_like", "reconstruction")
    return _on_features(real, fake, features, "fid_like", chunk)


def frechet(real: Any, fake: Any) -> float | Unavailable:
    """Frechet distance of two sets of features (n, d) and (m, d), n, m >= 2."""
    a, b = check_features(real, "fid", "real features"), check_features(fake, "fid", "fake features")
    _same_width(a, b)
    if min(len(a), len(b)) < 2:
        return Unavailable(f"fid needs at least 2 images on both sides, got {len(a)} and {len(b)}")
    gap = (a.mean(0) - b.mean(0)).square().sum()
    return as_value(_distance(float(gap), _root_of_data(a), _root_of_data(b)), "fid")


def frechet_moments(mean_r: Any, cov_r: Any, mean_f: Any, cov_f: Any) -> float | Unavailable:
    """Frechet distance of two Gaussians given by mean (d,) and covariance (d, d).

    >>> import numpy as np
    >>> frechet_moments(np.zeros(4), np.eye(4), np.ones(4), np.eye(4))
    4.0
    """
    means = [torch.as_tensor(m, dtype=torch.float64) for m in (mean_r, mean_f)]
    roots = [_root_of_covariance(torch.as_tensor(c, dtype=torch.float64)) for c in (cov_r, cov_f)]
    return as_value(_distance(float((means[0] - means[1]).square().sum()), *roots), "fid")


def floor(real: Any, rng: np.random.Generator) -> float | Unavailable:
    """Frechet distance between two random halves of real features (n, d), each of n // 2: what a perfect
    reconstruction of that number of other images would get."""
    features = check_features(real, "fid", "real features")
    order = torch.as_tensor(rng.permutation(len(features)), device=features.device)
    half = len(features) // 2
    if half < 2:
        return Unavailable(f"fid floor needs at least 4 real images, got {len(features)}")
    return frechet(features[order[:half]], features[order[half : 2 * half]])


def load(weights: str | Path | None = None) -> torch.nn.Module | Unavailable:
    """The Inception network with verified weights, loaded once per process; `Unavailable` if none."""
    path = verified("inception", weights)
    return Unavailable(f"fid: {path.reason}") if isinstance(path, Unavailable) else _network(str(path), sha256(path))


@cache
def _network(path: str, digest: str) -> torch.nn.Module:
    from pytorch_fid import inception

    state = torch.load(path, map_location="cpu", weights_only=True)
    # its constructor would download: it is handed the verified file in place of the download
    with patch.object(inception, "load_state_dict_from_url", lambda *args, **kwargs: state):
        network = inception.InceptionV3().eval()
    network.weights_sha256 = digest
    return network


def _on_features(real: Tensor, fake: Tensor, features: Features, name: str, chunk: int) -> float | Unavailable:
    sets = []
    for images, what in ((real, "truth"), (fake, "reconstruction")):
        parts = []
        with torch.no_grad():
            for start in range(0, len(images), chunk):
                block = check_images(images[start : start + chunk], name, what).float()
                parts.append(torch.as_tensor(features(block)).cpu())
        sets.append(torch.cat(parts))
    return frechet(*sets)


def _distance(gap: float, root_r: Tensor, root_f: Tensor) -> float:
    """|mu_r - mu_f|^2 + Tr S_r + Tr S_f - 2 Tr (S_r S_f)^{1/2} from roots R (k, d) with S = R^T R."""
    trace = float(root_r.square().sum() + root_f.square().sum())
    return max(0.0, gap + trace - 2 * float(torch.linalg.svdvals(root_r @ root_f.T).sum()))


def _root_of_data(x: Tensor) -> Tensor:
    return torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r").R


def _root_of_covariance(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    return values.clamp_min(0).sqrt()[:, None] * vectors.T


def _same_width(a: Tensor, b: Tensor) -> None:
    if a.shape[1] != b.shape[1]:
        raise UserError(f"fid: features of one network have one width, got {a.shape[1]} and {b.shape[1]}")
