"""What the benchmarks measure with: clocks, memory, the name of the hardware."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def clock(where: torch.device) -> float:
    """Seconds: of this processor, or of the wall once a GPU has done all that it was given."""
    if where.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(where)
    return time.perf_counter()


def take_turns(
    runs: dict[str, Callable[[], Tensor]], repeats: int, where: torch.device
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Seconds of each by `clock`, the best of the repeats, and what each returned."""
    seconds, results = dict.fromkeys(runs, float("inf")), {}
    for _ in range(repeats):
        for name, run in runs.items():
            start = clock(where)
            results[name] = run()
            seconds[name] = min(seconds[name], clock(where) - start)
    return seconds, results


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors alive, after every operation; `peak` is the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                ref = StorageWeakRef(leaf.untyped_storage())
                self.alive[ref.cdata] = (ref, leaf.untyped_storage().nbytes())
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def memory(run: Callable[[], Tensor], where: torch.device) -> float:
    """MiB of tensors alive at once."""
    if where.type != "cpu":
        torch.cuda.reset_peak_memory_stats(where)
        run()
        return torch.cuda.max_memory_allocated(where) / 2**20
    with Live() as live:
        run()
    return live.peak / 2**20


def hardware(where: torch.device | None = None) -> dict[str, str]:
    """What the rates depend on."""
    gpu = {"gpu": torch.cuda.get_device_name(where)} if where is not None and where.type == "cuda" else {}
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if (
        info.is_file()) else []  # fmt: skip
    return {
        **gpu,
        "processor": names[0] if names else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": "1",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
