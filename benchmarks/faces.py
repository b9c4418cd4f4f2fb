"""How fast generated portraits are drawn, and how hard they are to tell apart.

    uv run python benchmarks/faces.py [--resolution 32] [--people 50] [--nuisance 1.8] [--seed 0] [--more]
    uv run python benchmarks/faces.py --sheet faces.png

Prints photographs per CPU second and test accuracies (chance is 1 / people): logistic regression on pixels, a
small convolutional network, and with --more the same network trained on 150 other photographs of each person.
The data set is useful while the first is poor and the others good. --sheet only draws a contact sheet, one
person a row.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn

from inversionbench.data._portraits import random_people, render


def network(classes: int, resolution: int) -> nn.Sequential:
    """The pilot's size of target: a strided 5x5 convolution and three 3x3 ones, 96 features."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 5, 2, 2), nn.BatchNorm2d(24), nn.ReLU()]
    for a, b in ((24, 48), (48, 72), (72, 96)):
        layers += [nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(resolution // 16), nn.Flatten(),
                         nn.Linear(96 * (resolution // 16) ** 2, 96), nn.ReLU(), nn.Linear(96, classes))  # fmt: skip


def jitter(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the batch and shift all of it by up to two pixels."""
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    x = torch.where(mirrored, x.flip(3), x)
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return x.roll((dy, dx), (2, 3))


def fit(x: torch.Tensor, y: torch.Tensor, model: nn.Module, epochs: int, rate: float, decay: float, augment: bool,
        generator: torch.Generator) -> None:  # fmt: skip
    """AdamW with a one-cycle rate, batches of 64."""
    steps = epochs * (len(x) // 64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for i in range(len(x) // 64):
            rows = order[i * 64 : i * 64 + 64]
            batch = jitter(x[rows], generator) if augment else x[rows]
            loss = nn.functional.cross_entropy(model(batch), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    hits = [(model(a).argmax(1) == b).float() for a, b in zip(x.split(500), y.split(500))]
    return float(torch.cat(hits).mean())


def sheet(path: str, people: np.ndarray, rng: np.random.Generator, resolution: int, nuisance: float) -> None:
    """A PNG of ten people with twelve photographs each."""
    from PIL import Image

    x = render(people[:10], 12, rng, resolution, nuisance)
    rows = x.reshape(-1, 12, 3, resolution, resolution).transpose(0, 3, 1, 4, 2)
    Image.fromarray(rows.reshape(-1, 12 * resolution, 3)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--nuisance", type=float, default=1.8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", action="store_true", help="also train on 150 further photographs of each")
    parser.add_argument("--sheet", metavar="FILE", help="write a contact sheet and stop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    people = random_people(args.people, rng)
    if args.sheet:
        sheet(args.sheet, people, rng, args.resolution, args.nuisance)
        return

    def photographs(per_person: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = time.process_time()
        x = render(people, per_person, rng, args.resolution, args.nuisance)
        print(f"  {len(x)} photographs, {len(x) / (time.process_time() - start):.0f} per CPU second")
        return torch.from_numpy(x).float() / 255, torch.arange(args.people).repeat_interleave(per_person)

    print(f"{args.people} people at {args.resolution} pixels, nuisance {args.nuisance}, seed {args.seed}")
    train, test = photographs(40), photographs(40)
    flat = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * args.resolution**2), nn.LazyLinear(args.people))
    models = {"logistic regression": (flat, train, 30, 1e-3, 0.3, False),
              "network": (network(args.people, args.resolution), train, 15, 2e-3, 5e-4, True)}  # fmt: skip
    if args.more:
        further = photographs(150)
        models["network, 150 others"] = (network(args.people, args.resolution), further, 9, 2e-3, 5e-4, True)
    for name, (model, data, epochs, rate, decay, augment) in models.items():
        start = time.process_time()
        fit(*data, model, epochs, rate, decay, augment, generator)
        print(f"  {name}: train {accuracy(model, *data):.3f}, test {accuracy(model, *test):.3f},"
              f" {time.process_time() - start:.0f} CPU s")  # fmt: skip


if __name__ == "__main__":
    main()
