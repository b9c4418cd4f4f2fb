"""Where networks are trained and attacked: INVERSIONBENCH_DEVICE, else the GPU where there is one."""

from __future__ import annotations

import os

import torch


def device() -> torch.device:
    """All random numbers are drawn on the CPU, so a device changes rounding, not samples."""
    name = os.environ.get("INVERSIONBENCH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
