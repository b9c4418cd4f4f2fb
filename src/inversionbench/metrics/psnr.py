"""PSNR, the peak signal-to-noise ratio (survey, section 5).

PSNR_i = 10 log10(MAX^2 / MSE_i) in dB with MAX = 1 for images in [0, 1], per image; tables show the mean of
the per-image values, which is at least the PSNR of the mean MSE (Jensen). An exact recovery would be infinite
and would make every mean infinite: values are capped at 60 dB, and `pairwise` records how many were.
Below about 10 dB on images like handwritten digits a value says no more than the mean image does.
"""

from __future__ import annotations

from torch import Tensor

from inversionbench.core.quantity import Quantity
from inversionbench.metrics.base import Images, Spec, check_pair

CAP = 60.0  # dB: a root mean squared error of 1/1000, a quarter of one step of an 8-bit image
SPEC = Spec(
    "psnr",
    "PSNR",
    unit="dB",
    digits=1,
    direction="higher",
    range=(0.0, CAP),
    kind="pair",
    note="10 log10(1 / MSE) of pixels in [0, 1], per image; cut off at 60 dB, which an exact copy gets",
)
FURTHER = (
    Quantity(
        "success_20",
        "above 20 dB",
        unit="%",
        digits=0,
        factor=100,
        direction="higher",
        note="share of images with a PSNR above 20 dB",
    ),
    Quantity(
        "success_30",
        "above 30 dB",
        unit="%",
        digits=0,
        factor=100,
        direction="higher",
        note="share of images with a PSNR above 30 dB",
    ),
    Quantity(
        "hole_psnr",
        "PSNR in the hole",
        unit="dB",
        digits=1,
        direction="higher",
        note="PSNR within the missing part of a damaged photograph",
    ),
)


def psnr(truth: Images, reconstruction: Images) -> Tensor:
    """Peak signal-to-noise ratio per image, capped at 60 dB.

    truth, reconstruction: float (n, channels, height, width) in [0, 1]. Returns float64 (n,) in [0, 60];
    higher means more leakage. Raises `UserError` for other shapes, types or values.

    >>> import torch
    >>> x = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    >>> psnr(x, x + 0.1), psnr(x, x)
    (tensor([20.], dtype=torch.float64), tensor([60.], dtype=torch.float64))
    """
    t, r = check_pair(truth, reconstruction, SPEC)
    error = (t - r).square().mean(dim=(1, 2, 3))
    return (-10 * error.clamp_min(10 ** (-CAP / 10)).log10()).clamp(0.0, CAP)
