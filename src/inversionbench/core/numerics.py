"""The same bits on every x86-64 processor: settings that keep libraries from choosing kernels by processor.

torch, MKL, oneDNN, OpenBLAS and NumPy look at the processor and take the widest instructions it has; sums are then
added in another order, and a trained network differs in the last bits, then in a few predictions of a thousand. Under
`portable` all of them stay within AVX2, which x86-64 processors have had since 2013 (Intel) and 2015 (AMD), and MKL
runs in its mode for equal results on processors of any maker. What no setting reaches, `torch.sqrt`, is computed by
NumPy: see `_replace_functions`. `native` leaves everything to the libraries. docs/numerics.md says what is equal where.

The libraries read these variables when they are loaded, so `apply` comes before torch and NumPy are imported, and
child processes inherit it. This module imports nothing but the standard library.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from inversionbench.core.errors import UserError

PORTABLE: Mapping[str, str] = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch: elementwise work, reductions, backward of convolutions
    "MKL_CBWR": "COMPATIBLE",  # torch: matrix products and decompositions
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch: convolutions
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy, SciPy: matrix products and decompositions
    "OPENBLAS_L2_SIZE": "512",  # KiB; else block sizes follow the processor's cache
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # NumPy: exp, log, order of equal values in a sort
}
# One job is one thread, and sums of more threads are added in another order.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
CHOICES = ("portable", "native")
_KEPT: list[Any] = []  # what torch forgets when nobody holds it


def apply(name: str) -> None:
    """Set this process, and by inheritance its children, to `name`, one of `CHOICES`.

    Where the processor cannot compute as others do (see `possible`), "portable" changes nothing. Raises `ValueError`
    for another name, and `UserError` where torch or NumPy were loaded under other settings: they no longer listen.
    """
    if name not in CHOICES:
        raise ValueError(f"numerics '{name}': expected {' or '.join(CHOICES)}")
    if name == "portable" and possible():
        if not _set():
            _listening(name)
        os.environ.update({**PORTABLE, **THREADS})
        _replace()
    elif name == "native" and _set():  # inherited from a portable parent: what the user had set is not known
        _listening(name)
        for variable in PORTABLE:
            del os.environ[variable]


def active() -> str:
    """What this process computes under: "portable" where everything was set, else "native"."""
    return "portable" if _set() and _Replacing.done else "native"


def possible() -> bool:
    """Whether this processor can compute as others do: x86-64 with AVX2 and FMA (elsewhere torch told to use AVX2
    would stop at an illegal instruction)."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:  # not Linux: nothing there says it, and such processors are rare by now
        return True
    return {"avx2", "fma"} <= set(flags)


def provenance() -> dict[str, str]:
    """For a record: "numerics", and where they are the processor's own its "processor" as torch names it. A device that
    is no processor rounds as it likes."""
    import torch

    from inversionbench.core.device import device

    if device().type != "cpu":
        return {"numerics": "native", "processor": device().type}
    if active() == "portable":
        return {"numerics": "portable"}
    return {"numerics": "native", "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"}


def _set() -> bool:
    return all(os.environ.get(variable) == value for variable, value in PORTABLE.items())


def _listening(name: str) -> None:
    if loaded := [library for library in ("torch", "numpy") if library in sys.modules]:
        raise UserError(f"numerics '{name}' must be chosen before the import of {' and '.join(loaded)}: call "
                        f"inversionbench.core.numerics.apply('{name}') first")  # fmt: skip


class _Replacing(importlib.abc.MetaPathFinder):
    """Calls `_replace_functions` as soon as torch has been imported."""

    done = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            _replace_functions()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _replace() -> None:
    if _Replacing.done:
        return
    _Replacing.done = True
    if "torch" in sys.modules:
        _replace_functions()
    else:
        sys.meta_path.insert(0, _Replacing())


def _replace_functions() -> None:
    """Square roots of tensors from NumPy: correctly rounded, so the same everywhere, and no slower.

    torch takes them from MKL, which estimates them with RSQRTPS on all but new Intel processors and refines the
    estimate; what the instruction estimates is each maker's own affair, and no setting keeps MKL from it. Adam divides
    by such a root at every step. (`tensor ** 0.5` does not come this way: write `tensor.sqrt()`.)
    """
    import numpy as np
    import torch

    def into(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        with np.errstate(invalid="ignore"):  # of negative numbers: NaN, as in torch
            if x.dtype == out.dtype and x.dtype != torch.bfloat16:
                np.sqrt(x.detach().numpy(), out=out.detach().numpy())
                return out
            wide = torch.float32 if out.dtype == torch.bfloat16 else out.dtype
            return out.copy_(torch.from_numpy(np.sqrt(x.detach().to(wide).numpy())))

    def sqrt(x: torch.Tensor) -> torch.Tensor:
        own = x.is_floating_point() or x.is_complex()
        return into(x, torch.empty_like(x, dtype=x.dtype if own else torch.get_default_dtype()))

    def sqrt_out(x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        return into(x, out if out.shape == x.shape else out.resize_(x.shape))

    def sqrt_(x: torch.Tensor) -> torch.Tensor:
        return into(x, x)

    library = torch.library.Library("aten", "IMPL")
    _KEPT.append(library)
    for name, function in (("sqrt", sqrt), ("sqrt.out", sqrt_out), ("sqrt_", sqrt_)):
        library.impl(name, function, "CPU", allow_override=True)
