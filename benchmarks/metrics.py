"""Images per second of every pairwise metric, one thread, beside the library that others would call.

    python benchmarks/metrics.py [--sizes 28,32,64] [--images 256] [--json]

Prints a table, or with `--json` one line per case. Rates are per CPU second (other work on the machine hardly
moves them); the first call, which imports and compiles, is left out and reported as `start_s`. `import` is the
CPU time that importing a package costs in a fresh process, beyond torch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from inversionbench.metrics import pairwise

METRICS = ("mse", "psnr", "ssim", "fsim", "avd", "rdlv", "iip")
PACKAGES = ("inversionbench.metrics.ssim", "piq", "skimage.metrics", "torchmetrics.functional.image")
SECONDS = 0.5  # CPU time measured per case, at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="28,32,64")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = [import_cost(name) for name in PACKAGES]
    cases.append(large(10_000))  # first: the highest memory use of a process never falls
    for size in map(int, args.sizes.split(",")):
        cases += measured(args.images, 1 if size == 28 else 3, size)
    print("\n".join(json.dumps(case) for case in cases) if args.json else table(cases))


def measured(n: int, channels: int, side: int) -> list[dict]:
    """One case per metric and reference at one size."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, channels, side, side, generator=generator)
    y = (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    prior = x.mean(dim=0, keepdim=True) * 0.5 + x[:1] * 0.5
    cases = []
    for name in METRICS:
        rate, start = speed(lambda name=name: pairwise(x, y, [name], prior=prior, pool=x), n)
        cases.append({"case": name, "shape": [channels, side, side], "images_per_s": rate, "start_s": start})
    for name, call in references(x, y).items():
        rate, start = speed(call, n)
        cases.append({"case": name, "shape": [channels, side, side], "images_per_s": rate, "start_s": start})
    return cases


def references(x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], object]]:
    """SSIM by the usual libraries, in float64 as ours where they can, and one image at a time where they must."""
    import piq
    from skimage.metrics import structural_similarity

    def skimage() -> None:
        for a, b in zip(x.double().numpy(), y.double().numpy()):
            structural_similarity(
                a, b, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )

    return {
        "ssim (piq, float64)": lambda: piq.ssim(x.double(), y.double(), reduction="none", downsample=False),
        "ssim (scikit-image)": skimage,
    }


def large(n: int) -> dict:
    """Six metrics of many images in one call: CPU seconds, and how far memory rises above the images. IIP, whose
    work grows with the square of the number, is timed at `--images` only; LPIPS and FID need weights."""
    import piq  # noqa: F401  its memory is not that of the call

    x = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = (x + 0.05).clamp(0, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    pairwise(x, y, METRICS[:6], prior=x[:1])
    seconds = time.process_time() - begin
    rise = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"case": f"{n} pairs, {','.join(METRICS[:6])}", "shape": [3, 32, 32], "seconds": seconds, "rise_mib": rise}


def speed(call: Callable[[], object], n: int) -> tuple[float, float]:
    """Images per CPU second, and the CPU seconds of the first call."""
    begin = time.process_time()
    call()
    first = time.process_time() - begin
    begin, calls = time.process_time(), 0
    while calls < 2 or time.process_time() - begin < SECONDS:
        call()
        calls += 1
    return n * calls / (time.process_time() - begin), first


def import_cost(package: str) -> dict:
    script = f"import torch, time; t = time.process_time(); import {package}; print(time.process_time() - t)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {"case": f"import {package}", "seconds": float(done.stdout)}


def table(cases: list[dict]) -> str:
    lines = [f"{'case':38} {'shape':14} {'images/s':>10} {'start s':>8}"]
    for case in cases:
        shape = " x ".join(map(str, case.get("shape", ())))
        if "images_per_s" in case:
            lines.append(f"{case['case']:38} {shape:14} {case['images_per_s']:10.0f} {case['start_s']:8.2f}")
        else:
            rise = f", {case['rise_mib']:.0f} MiB above the images" if "rise_mib" in case else ""
            lines.append(f"{case['case']:38} {shape:14} {case['seconds']:.2f} CPU s{rise}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
