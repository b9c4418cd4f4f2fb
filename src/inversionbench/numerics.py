"""The same bits on every x86-64 processor: settings that keep libraries from choosing kernels by processor.

torch, MKL, oneDNN, OpenBLAS and NumPy look at the processor and take the widest instructions it has; sums are then
added in another order, and a trained network differs in the last bits, then in a few predictions of a thousand. Under
`portable` all of them stay within AVX2, which x86-64 processors have had since 2013 (Intel) and 2015 (AMD); MKL runs in
its mode for equal results on processors of any maker. `native` leaves everything to the libraries: faster where there
is AVX-512, and other bits. On arm64 and on GPUs results differ from x86-64 in rounding whatever is set here.

The libraries read these variables when they are loaded, so `apply` comes before torch and NumPy are imported, and
child processes inherit it. This module imports nothing but the standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

PORTABLE: Mapping[str, str] = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch: elementwise work, reductions, backward of convolutions
    "MKL_CBWR": "COMPATIBLE",  # torch: matrix products and decompositions
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch: convolutions
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy, SciPy: matrix products and decompositions
    "OPENBLAS_L2_SIZE": "512",  # KiB; else block sizes follow the processor's cache
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # NumPy: exp, log, order of equal values in a sort
}
CHOICES = ("portable", "native")


def apply(name: str) -> None:
    """Set this process's environment, and so that of its children, to `name`, one of `CHOICES`.

    Raises `ValueError` for another name, and `RuntimeError` where torch or NumPy were loaded under other settings:
    they no longer listen.
    """
    if name not in CHOICES:
        raise ValueError(f"numerics '{name}': expected {' or '.join(CHOICES)}")
    wanted = dict(PORTABLE) if name == "portable" else {k: v for k, v in os.environ.items() if k in PORTABLE}
    if name == "native" and active() == "portable":
        wanted = {}
    if wanted == {k: v for k, v in os.environ.items() if k in PORTABLE}:
        return
    if loaded := [library for library in ("torch", "numpy") if library in sys.modules]:
        raise RuntimeError(f"numerics '{name}' must be chosen before {' and '.join(loaded)} are imported")
    for variable in PORTABLE:
        os.environ.pop(variable, None)
    os.environ.update(wanted)


def active() -> str:
    """What this process's environment says: "portable" where it holds all settings, else "native"."""
    return "portable" if all(os.environ.get(k) == v for k, v in PORTABLE.items()) else "native"
