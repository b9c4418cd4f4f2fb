"""SSIM, the structural similarity index (survey, section 5; Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004).

At each position p of an 11 x 11 circular Gaussian window (sigma 1.5 pixels, weights summing to 1)

    SSIM(p) = (2 mu_x mu_y + C1)(2 s_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(s_x^2 + s_y^2 + C2)),

C1 = 0.01^2, C2 = 0.03^2 for images in [0, 1]; the value is the mean over positions and channels. The survey
prints the formula once for the whole image; that is a different number. Only windows that lie inside the
image count, as in the authors' program, in piq and in scikit-image's Gaussian form; torchmetrics pads and
differs by 0.05 to 0.15 at 28 x 28. Computed in float64: float32 loses digits in flat regions. Written out
here, because importing piq costs more than importing torch. Mostly black images score high wherever both are
black: read SSIM with its controls.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from inversionbench.metrics.base import Images, Spec, check_pair

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
SPEC = Spec(
    "ssim",
    "SSIM",
    digits=2,
    direction="higher",
    range=(-1.0, 1.0),
    kind="pair",
    minimum_side=WINDOW,
    note="structural similarity of an image to its original; 1 is the same image",
)


def ssim(truth: Images, reconstruction: Images) -> Tensor:
    """Structural similarity per image.

    truth, reconstruction: float (n, channels, height, width) in [0, 1], sides of at least 11 pixels. Returns
    float64 (n,) in [-1, 1], 1 only for identical images; higher means more leakage. Raises `UserError` for
    other shapes, types, values or sizes.

    >>> import torch
    >>> flat = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    >>> round(float(ssim(0.5 * flat, 0.6 * flat)), 5)
    0.98361
    """
    return similarity(*check_pair(truth, reconstruction, SPEC))


def similarity(t: Tensor, r: Tensor) -> Tensor:
    """The same of checked images, both float64, with gradients."""
    down, across = (_filter(side).to(t.device) for side in t.shape[-2:])
    moments = torch.stack([t, r, t * t, r * r, t * r]) @ across.T
    mu_t, mu_r, tt, rr, tr = (moments.transpose(-1, -2) @ down.T).unbind(0)
    means, squares = mu_t * mu_r, mu_t.square() + mu_r.square()
    numerator = (2 * means + C1) * (2 * (tr - means) + C2)
    denominator = (squares + C1) * (tt + rr - squares + C2)
    return (numerator / denominator).mean(dim=(1, 2, 3))


@cache
def _filter(side: int) -> Tensor:
    """The one-dimensional Gaussian window at every valid position, as a matrix (side - 10, side).

    A matrix product is the fastest float64 form of this filter on small images, several times a convolution.
    """
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    rows = torch.zeros(side - WINDOW + 1, side, dtype=torch.float64)
    for i in range(len(rows)):
        rows[i, i : i + WINDOW] = weights / weights.sum()
    return rows
