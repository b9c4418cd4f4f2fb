"""FSIM, the feature similarity index (survey, section 5; Zhang, Zhang, Mou, Zhang, IEEE TIP 2011).

With phase congruency PC (log-Gabor filters, 4 scales, 4 orientations) and Scharr gradient magnitude G of the
luminance in 0..255, S_PC = (2 PC_1 PC_2 + 0.85) / (PC_1^2 + PC_2^2 + 0.85), S_G the same with 160, and

    FSIM = sum_p max(PC_1, PC_2)(p) S_PC(p) S_G(p) / sum_p max(PC_1, PC_2)(p).

Computed by piq in float64, on luminance for colour images too, so that grey and colour rows compare; with
`chromatic` it is FSIMc. The importing process pays for piq (a few seconds of CPU). At 28 x 28 the largest
wavelength exceeds the image and even independent noise scores about 0.75: read it with its controls only. Two flat
images have no phase congruency at all: FSIM is undefined there (NaN), though a library prints a number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.metrics.base import Images, Spec, check_pair

SPEC = Spec(
    "fsim",
    "FSIM",
    digits=2,
    direction="higher",
    range=(0.0, 1.0),
    kind="pair",
    minimum_side=4,
    note=("similarity of phase congruency and gradients; on small images noise scores high, so read the controls"),
)


def fsim(truth: Images, reconstruction: Images, chromatic: bool = False) -> Tensor:
    """Feature similarity per image.

    truth, reconstruction: float (n, channels, height, width) in [0, 1], 1 or 3 channels. Returns float64 (n,)
    in (0, 1], 1 for identical images, NaN where both images are flat; higher means more leakage. Raises
    `UserError` for other shapes, types or values, and for `chromatic` on grey images.

    >>> x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> float(fsim(x, x))
    1.0
    """
    t, r = check_pair(truth, reconstruction, SPEC)
    channels = t.shape[1]
    if channels not in (1, 3) or (chromatic and channels == 1):
        raise UserError(f"fsim: expected {'3' if chromatic else '1 or 3'} channels, got {channels}")
    from piq import fsim as similarity

    flat_t, flat_r = _flat(t), _flat(r)
    if not chromatic:  # any flat image is as good as black, and black has no rounding noise to find phases in
        t, r = t * ~flat_t[:, None, None, None], r * ~flat_r[:, None, None, None]
    value = similarity(r, t, data_range=1.0, chromatic=chromatic, reduction="none")
    return torch.where(flat_t & flat_r, torch.nan, value)


def _flat(x: Tensor) -> Tensor:
    """Whether each channel of an image is one constant: (n,)."""
    return (x.amax(dim=(2, 3)) - x.amin(dim=(2, 3)) < 1e-6).all(dim=1)
