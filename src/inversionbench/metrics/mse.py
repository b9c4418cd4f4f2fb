"""MSE, the mean squared pixel error (survey, section 5).

MSE(x, y) = 1 / (C H W) sum_{c,h,w} (x_chw - y_chw)^2, one value per image; tables show the mean over images.
The survey sums over "N", to be read as the number of pixels. Images are in [0, 1], after undoing the
normalisation and clamping the reconstruction; papers that print the sum, or the error of normalised tensors,
print another number. The mean image often beats a sharp but shifted reconstruction: read MSE with its
controls.
"""

from __future__ import annotations

from torch import Tensor

from inversionbench.metrics.base import Images, Spec, check_pair

SPEC = Spec(
    "mse",
    "MSE",
    digits=4,
    direction="lower",
    range=(0.0, 1.0),
    kind="pair",
    note="mean squared error of pixels in [0, 1]",
)


def mse(truth: Images, reconstruction: Images) -> Tensor:
    """Mean squared error per image.

    truth, reconstruction: float (n, channels, height, width) in [0, 1]. Returns float64 (n,) in [0, 1];
    lower means more leakage. Raises `UserError` for other shapes, types or values.

    >>> import torch
    >>> x = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)
    >>> mse(x, x + 0.1)
    tensor([0.0100, 0.0100], dtype=torch.float64)
    """
    t, r = check_pair(truth, reconstruction, SPEC)
    return (t - r).square().mean(dim=(1, 2, 3))
