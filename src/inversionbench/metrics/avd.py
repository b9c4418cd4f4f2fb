"""AVD, the absolute variation distance (survey, section 5; Papadopoulos et al., ECIR 2024).

It compares how strongly two images vary, not their values. With the differences Dx[i, j] = v[i, j] - v[i, j+1],
Dy[i, j] = v[i, j] - v[i+1, j], and the same once more for Dxx and Dyy,

    g = |Dx[1:, :] + Dy[:, 1:]|,   h = |Dxx[2:, :] + Dyy[:, 2:]|,
    AVD = sqrt(c1 mean((g_t - g_r)^2) + c2 mean((h_t - h_r)^2)),   c1 = 1, c2 = 0.5,

means over channels and positions. This is what the authors' program computes, crops included; the survey's
equation lost a sign, and reads as a sum of two norms. Deviations from that program: reconstructions are
clamped, not folded to absolute values, and nothing is rounded to 8 bits.
AVD is blind to brightness and to contrast inversion, and a flat image scores fairly well: never read it
without a pixel metric.
"""

from __future__ import annotations

from torch import Tensor

from inversionbench.metrics.base import Images, Spec, check_pair

C1, C2 = 1.0, 0.5
SPEC = Spec(
    "avd",
    "AVD",
    digits=3,
    direction="lower",
    range=(0.0, 12.0**0.5),
    kind="pair",
    minimum_side=3,
    note=("absolute variation distance: how differently two images vary; blind to brightness, and kind to flat images"),
)


def avd(truth: Images, reconstruction: Images) -> Tensor:
    """Absolute variation distance per image.

    truth, reconstruction: float (n, channels, height, width) in [0, 1], sides of at least 3 pixels. Returns
    float64 (n,) in [0, 3.465]; lower means more leakage. Raises `UserError` for other shapes, types, values
    or sizes.

    >>> import torch
    >>> ramp = (0.1 * torch.arange(8.0, dtype=torch.float64)).expand(1, 1, 8, 8)
    >>> round(float(avd(torch.zeros(1, 1, 8, 8), ramp)), 6)
    0.1
    """
    t, r = check_pair(truth, reconstruction, SPEC)
    (g_t, h_t), (g_r, h_r) = _variation(t), _variation(r)
    first, second = ((a - b).square().mean(dim=(1, 2, 3)) for a, b in ((g_t, g_r), (h_t, h_r)))
    return (C1 * first + C2 * second).sqrt()


def _variation(v: Tensor) -> tuple[Tensor, Tensor]:
    """|sum of first differences| (n, c, h-1, w-1) and |sum of second differences| (n, c, h-2, w-2)."""
    dx, dy = -v.diff(dim=3), -v.diff(dim=2)
    dxx, dyy = -dx.diff(dim=3), -dy.diff(dim=2)
    return (dx[:, :, 1:] + dy[:, :, :, 1:]).abs(), (dxx[:, :, 2:] + dyy[:, :, :, 2:]).abs()
