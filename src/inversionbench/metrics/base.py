"""What all metrics share: their description, the checks of their input, and values that cannot be had."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.core.quantity import Quantity

Images = Tensor | np.ndarray
# originals x and reconstructions y, float64 (n, c, h, w), and their place among all -> values (n,) by name
Scorer = Callable[[Tensor, Tensor, slice], dict[str, Tensor]]
ROUNDING = 1e-6  # how far an image in [0, 1] may stick out through float32 arithmetic


@dataclass(frozen=True)
class Spec(Quantity):
    """One metric: how it is shown (`direction` for `kind` "utility": which way is better), and what it needs.

    `range`: smallest and largest value for images in [0, 1]. `kind`: "pair" (one value per reconstruction with its
    original), "set" (one value per set), "protocol" (evaluators, labels, tokens, rows), "utility" (of the target).
    `minimum_side`: smallest height and width in pixels. `weights`: names in the table of declared weights of which one
    is needed. `needs`: what a metric of pairs wants beside the two images: "prior", "pool", "weights" or "features" of
    an evaluator; its module then has `SCORERS`: id -> (originals, context, notes) -> `Scorer`, or `Unavailable`.
    """

    range: tuple[float, float] = (0.0, 1.0)
    kind: str = "protocol"
    minimum_side: int = 1
    weights: tuple[str, ...] = ()
    needs: str = ""


@dataclass(frozen=True)
class Unavailable:
    """Stands where a value would stand, with the reason why there is none."""

    reason: str


def as_value(value: float, metric: str) -> float | Unavailable:
    """A finite float, or `Unavailable`: infinities and NaN never reach a record.

    >>> as_value(float("inf"), "fid")
    Unavailable(reason='fid is not finite (inf)')
    """
    value = float(value)
    return value if math.isfinite(value) else Unavailable(f"{metric} is not finite ({value})")


def check_shape(images: Images, metric: str, what: str) -> Tensor:
    """`images` as a floating tensor (n, channels, height, width), n > 0, values not looked at."""
    if not isinstance(images, (Tensor, np.ndarray)):
        raise UserError(f"{metric}: {what} must be a tensor or an array, got {type(images).__name__}")
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(
            f"{metric}: {what} must be (n, channels, height, width), n > 0, got shape {tuple(images.shape)}"
        )
    floating = images.is_floating_point() if isinstance(images, Tensor) else images.dtype.kind == "f"
    if not floating:
        raise UserError(
            f"{metric}: {what} must be floats in [0, 1], got {images.dtype}: divide uint8 images by 255"
        )
    if isinstance(images, Tensor):
        return images.detach()
    plain = images.flags.writeable and images.flags.c_contiguous  # else torch warns or refuses
    return torch.from_numpy(images if plain else np.array(images, order="C"))


def check_images(images: Images, metric: str, what: str) -> Tensor:
    """`images` as a float64 tensor (n, channels, height, width) with every value in [0, 1]."""
    tensor = check_shape(images, metric, what).double()
    low, high = (float(v) for v in torch.aminmax(tensor))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(
            f"{metric}: {what} holds NaN or infinite pixels: leave such reconstructions to `pairwise`, which "
            "scores them as failures"
        )
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise UserError(
            f"{metric}: {what} must lie in [0, 1], got [{low:.4g}, {high:.4g}]: undo the normalisation, and "
            "clamp reconstructions (`pairwise` does, and records the share of clipped pixels)"
        )
    return tensor if low >= 0 and high <= 1 else tensor.clamp(0, 1)


def check_same_shape(truth: Any, reconstruction: Any, metric: str) -> None:
    if truth.shape != reconstruction.shape:
        raise UserError(
            f"{metric}: truth and reconstruction must have one shape, got {tuple(truth.shape)} and "
            f"{tuple(reconstruction.shape)}"
        )


def too_small(images: Any, spec: Spec) -> str | None:
    """Why these images are too small for a metric, or None."""
    side = min(images.shape[-2:])
    if side >= spec.minimum_side:
        return None
    return (
        f"{spec.id} needs images of at least {spec.minimum_side} x {spec.minimum_side} pixels, "
        f"got {images.shape[-2]} x {images.shape[-1]}"
    )


def check_pair(truth: Images, reconstruction: Images, spec: Spec) -> tuple[Tensor, Tensor]:
    """Both as float64 tensors (n, channels, height, width) in [0, 1], of one shape, large enough."""
    t, r = check_images(truth, spec.id, "truth"), check_images(reconstruction, spec.id, "reconstruction")
    check_same_shape(t, r, spec.id)
    reason = too_small(t, spec)
    if reason:
        raise UserError(reason)
    return t, r.to(t.device)


def check_features(features: Any, metric: str, what: str) -> Tensor:
    """Features as a finite float64 tensor (n, d), n > 0 and d > 0."""
    tensor = torch.as_tensor(features).detach()
    if tensor.ndim != 2 or 0 in tensor.shape or not tensor.is_floating_point():
        raise UserError(
            f"{metric}: {what} must be floats (n, d) with n > 0, got {tensor.dtype} {tuple(tensor.shape)}"
        )
    if not torch.isfinite(tensor).all():
        raise UserError(f"{metric}: {what} holds NaN or infinite values: the network that made it diverged")
    return tensor.double()


def check_labels(labels: Any, n: int, metric: str, what: str) -> Tensor:
    """Integer labels (n,) as int64; `n` is the number of things they belong to."""
    tensor = torch.as_tensor(labels).detach()
    if tensor.shape != (n,) or tensor.is_floating_point() or tensor.is_complex():
        raise UserError(
            f"{metric}: {what} must be {n} integers, one each, got {tensor.dtype} {tuple(tensor.shape)}"
        )
    return tensor.long()
