"""What portable numerics cost: processor seconds of the same work under both, one thread, in processes that take turns.

    uv run python benchmarks/numerics.py [--repeats 3] [--out FILE]

Work: a classifier (cnn, 3 epochs of 1,500 faces), a prior (dcgan, 40 steps), gradient matching (ConvNet, 8 images, 100
iterations). Prints, and writes, the best of the repeats for each and the ratio portable / native; starting Python and
importing torch are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from inversionbench.core import numerics


def works() -> dict[str, Callable[[], object]]:
    import numpy as np
    import torch
    from torch.nn import functional as F

    from inversionbench.core.protocol import Protocol
    from inversionbench.core.recipe import Recipe
    from inversionbench.data.base import Part
    from inversionbench.gradients.matching import objective
    from inversionbench.gradients.objectives import Matching
    from inversionbench.gradients.search import adam
    from inversionbench.gradients.simulate import simulator
    from inversionbench.models import federated
    from inversionbench.models.classifiers import build
    from inversionbench.priors.dcgan import Dcgan
    from inversionbench.training.loop import fit

    g = torch.Generator().manual_seed(0)
    x = torch.randint(256, (1500, 3, 32, 32), dtype=torch.uint8, generator=g)
    y = torch.randint(50, (1500,), generator=g)
    public = Part(x.numpy(), np.zeros(1500, dtype=np.int64))
    prior = Dcgan(z_dim=64, width=16, upsample="nearest", loss="hinge", critic_steps=1, ema=0.99, steps=40, measure=40)
    victim = federated.build({"name": "convnet", "widths": [8, 16, 32]}, (3, 32, 32), 10, g)
    client, one = simulator(victim, Protocol(batch_size=1)), F.one_hot(torch.arange(8)[:, None], 10).float()
    observed = client(torch.rand(8, 1, 3, 32, 32, generator=g), one).detach()
    search = objective(client, Matching(observed), one, 0.01)
    return {
        "classifier": lambda: fit(lambda: build({"name": "cnn"}, (3, 32, 32), 50), x, y, 50, Recipe(epochs=3)),
        "prior": lambda: prior.train(public, torch.Generator().manual_seed(1), lambda items, **_: items),
        "matching": lambda: adam(torch.zeros(8, 1, 3, 32, 32), search, 100, 0.1),
    }


def measure() -> dict[str, float]:
    found = {}
    for name, work in works().items():
        start = time.process_time()
        work()
        found[name] = time.process_time() - start
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", choices=numerics.CHOICES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        os.environ.update(numerics.THREADS)
        numerics.apply(args.inside)
        print(json.dumps(measure()))
        return
    best: dict[str, dict[str, float]] = {name: {} for name in numerics.CHOICES}
    for _ in range(args.repeats):
        for name in numerics.CHOICES:
            command = [sys.executable, __file__, "--inside", name]
            said = subprocess.run(command, check=True, capture_output=True, text=True)
            for work, seconds in json.loads(said.stdout).items():
                best[name][work] = min(seconds, best[name].get(work, seconds))
    lines = {work: {**{n: round(best[n][work], 3) for n in best}, "ratio": round(best["portable"][work] / s, 3)}
             for work, s in best["native"].items()}  # fmt: skip
    print(json.dumps(lines, indent=1))
    if args.out:
        args.out.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
