"""Latent iterations per second of the GMI loop, one thread, beside a plain loop over the same networks.

    python benchmarks/latent_attack.py [--rows 8] [--iterations 6] [--repeats 3] [--json] [--out FILE]

Target VGG16-BN at 64 x 64, 1000 classes; generator and critic of the published width. The plain loop is what
one writes first: `loss.backward()` through networks whose weights ask for gradients too, in the default memory
order. Ours freezes all weights and stores convolutions channels last. Both start from the same latents and
must end at the same images (largest difference is printed). Rates are per CPU second, best of the repeats,
the two loops taking turns. --out: the result as a JSON file, with the processor it was measured on. Exit
status 1 if the ratio is below 1.4 or the images differ by more than 1e-3.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from measuring import hardware
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.prior import Prior
from inversionbench.latent.search import Point
from inversionbench.models.classifiers import build, freeze
from inversionbench.models.generators import Critic, Generator
from inversionbench.oracle.base import Ledger
from inversionbench.oracle.classifier import WhiteBox
from inversionbench.tracks.classifier.attacks.gmi import Gmi

WANTED = 1.4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = compare(args.rows, args.iterations, args.repeats)
    if args.out:
        settings = {"rows": args.rows, "iterations": args.iterations, "repeats": args.repeats}
        case = "GMI, VGG16-BN at 64 x 64, 1000 classes; latent iterations per CPU second"
        about = {"case": case, "settings": settings, "wanted": WANTED, **result, "hardware": hardware()}
        args.out.write_text(json.dumps(about, indent=1) + "\n")
    if args.json:
        print(json.dumps(result))
    else:
        print(f"latent iterations per CPU second, {args.rows} rows: plain {result['plain']:.2f}, "
              f"ours {result['ours']:.2f}, ratio {result['ratio']:.2f}; "
              f"largest difference of the images {result['difference']:.1e}")
    return int(result["ratio"] < WANTED or result["difference"] > 1e-3)


def compare(rows: int, iterations: int, repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    nets = [Generator(100, 64, 3, 64, "transposed"), Critic(64, 3, 64, "instance"),
            build({"name": "vgg16_bn"}, (3, 64, 64), 1000)]
    nets = [net.eval() for net in nets]
    z, y = torch.randn(rows, 100), torch.arange(rows)
    attack = Gmi(iterations=iterations)
    generator, critic, target = (freeze(copy.deepcopy(net)) for net in nets)
    search = attack.search(Prior(generator, critic, 100), WhiteBox(target, Ledger()))
    best = {"plain": 0.0, "ours": 0.0}
    images: dict[str, Tensor] = {}
    for _ in range(repeats):
        for name, run in (
            ("plain", lambda: plain(nets, z, y, attack)),
            ("ours", lambda: search.run(Point(z, attack.box), y)[0]),
        ):
            start = time.process_time()
            images[name] = run()
            best[name] = max(best[name], iterations / (time.process_time() - start))
    gap = (images["plain"] - images["ours"]).abs().max().item()
    return {**best, "ratio": best["ours"] / best["plain"], "difference": gap, "rows": rows}


def plain(nets: list[nn.Module], z: Tensor, y: Tensor, attack: Gmi) -> Tensor:
    """GMI's stage 2 as a short script would have it."""
    generator, critic, target = nets
    z = z.clone().requires_grad_(True)
    velocity = torch.zeros_like(z)
    for _ in range(attack.iterations):
        for net in nets:
            net.zero_grad()
        z.grad = None
        x = generator(z)
        identity = F.cross_entropy(target(x), y, reduction="sum")
        loss = (attack.identity_weight * identity - critic(x).sum()) / attack.reference
        loss.backward()
        before = velocity.clone()
        velocity = attack.momentum * velocity - attack.rate * z.grad
        with torch.no_grad():
            z += (1 + attack.momentum) * velocity - attack.momentum * before
            z.clamp_(-attack.box, attack.box)
    with torch.no_grad():
        return generator(z)


if __name__ == "__main__":
    sys.exit(main())
