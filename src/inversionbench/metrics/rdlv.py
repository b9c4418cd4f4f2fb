"""RDLV, the relative data leakage value (survey, section 5; Hatamizadeh et al., IEEE TMI 2023).

RDLV_i = (SSIM(T_i, I_i) - SSIM(T_i, P)) / SSIM(T_i, P): how much nearer the reconstruction I is to the
original T than a prior image P that knew nothing of it. P is the mean image of the public set, also for
attacks that start from noise, so that rows compare. SSIM is the one of `ssim`.

Where SSIM(T, P) is below 0.05 the quotient is noise of random sign and size: RDLV is undefined (NaN) for that
image, and the difference dSSIM = SSIM(T, I) - SSIM(T, P), always defined, stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.core.quantity import Quantity
from inversionbench.metrics.base import Images, Scorer, Spec, Unavailable, check_images, check_pair
from inversionbench.metrics.ssim import SPEC as SSIM
from inversionbench.metrics.ssim import ssim

SMALLEST = 0.05  # SSIM(T, P) below this: undefined
SPEC = Spec(
    "rdlv",
    "RDLV",
    digits=2,
    direction="higher",
    range=(-(1 + SMALLEST) / SMALLEST, (1 - SMALLEST) / SMALLEST),
    kind="pair",
    needs="prior",
    minimum_side=SSIM.minimum_side,
    note="relative data leakage value: SSIM above that of the public mean image, as a multiple of the latter",
)
FURTHER = (
    Quantity(
        "dssim",
        "SSIM over mean image",
        digits=2,
        direction="higher",
        note="SSIM minus that of the public mean image, which is defined where RDLV is not",
    ),
)


def rdlv(truth: Images, reconstruction: Images, prior: Images) -> Tensor:
    """Relative data leakage value per image.

    truth, reconstruction: float (n, channels, height, width) in [0, 1], sides of at least 11 pixels. prior:
    one image (1, channels, height, width), or one each (n, ...). Returns float64 (n,) in [-21, 19], 0 for a
    reconstruction as good as the prior, NaN where SSIM(truth, prior) < 0.05; higher means more leakage.
    Raises `UserError` for other shapes, types, values or sizes.

    >>> x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> float(rdlv(x, x.clamp(0.2, 0.8), x.clamp(0.2, 0.8)))
    0.0
    """
    return rdlv_and_difference(truth, reconstruction, prior)[0]


def rdlv_and_difference(truth: Images, reconstruction: Images, prior: Images) -> tuple[Tensor, Tensor]:
    """RDLV and dSSIM = SSIM(truth, reconstruction) - SSIM(truth, prior), both float64 (n,)."""
    t, r = check_pair(truth, reconstruction, SPEC)
    base = ssim(t, prior_of_each(t, prior))
    difference = ssim(t, r) - base
    return torch.where(base < SMALLEST, torch.nan, difference / base), difference


def prior_of_each(t: Tensor, prior: Images) -> Tensor:
    """The prior image of every original, shaped as t; `UserError` if there is neither one for all nor one each."""
    p = check_images(prior, "rdlv", "prior").to(t.device)
    if p.shape[1:] != t.shape[1:] or len(p) not in (1, len(t)):
        raise UserError(
            f"rdlv: prior must be one image (1, ...) or one each, shaped as the truth {tuple(t.shape)}, "
            f"got {tuple(p.shape)}"
        )
    return p.expand_as(t)


def _scorer(t: Tensor, context: Mapping[str, Any], notes: dict[str, Any]) -> Scorer | Unavailable:
    if context["prior"] is None:
        return Unavailable("rdlv needs a prior image, for example the mean image of the public set")
    prior = prior_of_each(t, context["prior"])
    return lambda x, y, block: dict(zip(("rdlv", "dssim"), rdlv_and_difference(x, y, prior[block])))


SCORERS = {"rdlv": _scorer}
