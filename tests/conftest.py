"""Shared by all tests, and two switches: under which numerics, and with which seeds.

    uv run pytest --numerics native         the processor's own kernels (others: see NUMERICS)
    uv run pytest --seed-shift 1            every seed of data, networks and attacks is another one

What a test asks for must hold under all of them. A test of recorded bits (mark `recorded`) keeps its seeds, and says
under which numerics it holds.
"""

import os
from types import MappingProxyType

# Container images set it, and then each of the many processes that tests start would compile PyTorch again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Expected numbers are those of the processor; a GPU rounds otherwise.
os.environ.setdefault("INVERSIONBENCH_DEVICE", "cpu")

from inversionbench.core import numerics
from inversionbench.core.numerics import PORTABLE

NUMERICS = MappingProxyType({
    "portable": PORTABLE,
    "native": {},
    "default": {**PORTABLE, "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},  # no AVX at all
    "cbwr": {**PORTABLE, "MKL_CBWR": "AVX2"},
})
_REAL = {}


def pytest_addoption(parser):
    parser.addoption("--numerics", choices=list(NUMERICS), default=os.environ.get("TEST_NUMERICS", "portable"))
    parser.addoption("--seed-shift", type=int, default=int(os.environ.get("TEST_SEED_SHIFT", "0")), metavar="K")


def pytest_configure(config):
    """Before torch is imported, here and (by inheritance) in the workers of xdist and in child processes."""
    for name in PORTABLE:
        os.environ.pop(name, None)
    os.environ |= numerics.THREADS
    chosen = config.getoption("--numerics")
    os.environ |= NUMERICS[chosen]
    if chosen == "portable":
        numerics.apply(chosen)
    else:  # commands called in this process keep it as it is
        numerics.apply = lambda name: None
    os.environ["TEST_NUMERICS"] = chosen
    os.environ["TEST_SEED_SHIFT"] = str(config.getoption("--seed-shift"))
    if config.getoption("--seed-shift"):
        _shift_seeds(config.getoption("--seed-shift"))


def pytest_runtest_setup(item):
    if _REAL and item.get_closest_marker("recorded"):
        _swap(_REAL)


def pytest_runtest_teardown(item):
    if _REAL and item.get_closest_marker("recorded"):
        _swap(_SHIFTED)


_SHIFTED = {}


def _shift_seeds(shift: int) -> None:
    """Replace what turns a number into a stream of random numbers."""
    import numpy as np
    import sklearn.ensemble
    import sklearn.tree
    import torch

    def moved(seed):
        return (int(seed) + 1_000_003 * shift) % (1 << 63)

    class Generator(torch.Generator):
        def manual_seed(self, seed):
            return super().manual_seed(moved(seed))

    def default_rng(seed=None, _make=np.random.default_rng):
        if isinstance(seed, (int, np.integer)):
            return _make(moved(seed))
        return _make([*map(int, seed), shift] if isinstance(seed, (list, tuple, np.ndarray)) else seed)

    def manual_seed(seed, _make=torch.manual_seed):
        return _make(moved(seed))

    def check_random_state(seed, _make=sklearn.utils.check_random_state):  # of trees and forests
        return _make(moved(seed) % (1 << 32) if isinstance(seed, (int, np.integer)) else seed)

    for key, new in (((torch, "Generator"), Generator), ((torch, "manual_seed"), manual_seed),
                     ((np.random, "default_rng"), default_rng),
                     ((sklearn.tree._classes, "check_random_state"), check_random_state),
                     ((sklearn.ensemble._forest, "check_random_state"), check_random_state),
                     ((sklearn.ensemble._base, "check_random_state"), check_random_state)):  # fmt: skip
        _REAL[key] = getattr(*key)
        _SHIFTED[key] = new
    _swap(_SHIFTED)


def _swap(names) -> None:
    for (module, name), value in names.items():
        setattr(module, name, value)
