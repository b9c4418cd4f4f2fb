"""Does the verifier know the right people, and is it fooled? Measured on a finished run of the classifier track.

    python benchmarks/verifier.py results/laptop faces_cnn

First table: what each judge says of pictures of which we know what they show, and of the run's undefended attacks.
"Texture" is made here: both evaluators are optimised at once, in the pixels, without any prior. Second table, for
generated people, whose identity is a known vector: how well each number agrees with it. On reconstructions the vector
is read off the picture (`attribute_recovery`) and the agreement is a correlation; on portraits drawn from a known
vector nothing is read, and it is the area under the ROC curve of "no private person is nearer". In brackets: 95 % over
people, by bootstrap. Markdown on standard output; docs/verifier.md holds it.
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inversionbench.core import numerics

numerics.apply("portable")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.data.base import Dataset, load
from inversionbench.data.faces import random_people, render
from inversionbench.metrics.auroc_gap import placements
from inversionbench.tracks.classifier.evaluate import refer, score
from inversionbench.tracks.classifier.track import network
from inversionbench.training._degrade import noisy
from inversionbench.training.evaluators import Judges

SHOWN = {
    "identified": "verifier: identified", "verified": "verifier: verified", "dlib_identified": "dlib: identified",
    "dlib_verified": "dlib: verified", "agreement": "both evaluators", "target_top1": "target", "knn_distance": "KNN",
    "attribute_recovery": "attribute recovery",
}  # fmt: skip
EACH = 4  # pictures of each person
BOX, STEPS, RATE = 0.1, 100, 0.02  # of texture: largest change of a photograph, steps of Adam
DRAWS = 2000
Rows = dict[str, Any]  # metric -> values (n,), and "person" (n,)


class Bench:
    """One scenario of a run: its data, judges and targets."""

    def __init__(self, run: Path, scenario: str):
        judges, data = _of(run, scenario)
        self.run, self.scenario = run, scenario
        self.data: Dataset = load(run / "data" / data)
        state = torch.load(run / "evaluators" / judges / "evaluator.pt", weights_only=True)
        self.judges = Judges(state)
        self.reference = refer(self.judges, self.data.private)
        folder = run / "targets" / scenario / "none" / "0" / "released"
        self.targets = [network(torch.load(f, weights_only=True)) for f in sorted(folder.glob("*.pt"))]
        self.rng = torch.Generator().manual_seed(0)

    def scored(self, x: Tensor, y: Tensor, target: nn.Module | None = None) -> Rows:
        found = score(self.judges, self.reference, x, y, target or self.targets[0]).values
        return {**found, "person": y.numpy()}

    def attacks(self) -> Iterator[tuple[str, Rows]]:
        """The undefended reconstructions of each attack, all seeds together; what failed is left out."""
        for folder in sorted((self.run / "reconstructions" / self.scenario).glob("*/none/0")):
            parts = []
            for file in sorted(folder.glob("*/reconstruction.pt")):
                found = torch.load(file, weights_only=True)
                if found["status"] == "ok":
                    answer = found["answer"]
                    failed = answer["failed"] if answer["failed"] is not None else torch.zeros(len(answer["data"]))
                    keep = (failed == 0) & answer["data"].isfinite().flatten(1).all(1)
                    target = self.targets[int(file.parent.name) % len(self.targets)]
                    parts.append(self.scored(answer["data"][keep].clamp(0, 1), answer["labels"][keep], target))
            if parts:
                yield folder.parents[1].name, pooled(parts)

    def known(self) -> Iterator[tuple[str, Rows]]:
        """Pictures of which we know what they show."""
        x, y = self.photographs()
        other = (y + 1) % self.data.classes
        coarse = F.interpolate(F.adaptive_avg_pool2d(x, x.shape[-1] // 2), x.shape[2:], mode="bilinear")
        noise = torch.rand(x.shape, generator=self.rng)
        mean = torch.from_numpy(self.data.public.x.mean(0, dtype=np.float64) / 255).float().expand_as(x)
        yield "held-out photographs", self.scored(x, y)
        yield "the same at half the resolution", self.scored(coarse, y)
        yield "the same with noise", self.scored(noisy(x, self.rng), y)
        yield "photographs of other people", self.scored(x, other)
        yield "other people with texture", self.scored(self.texture(x, other, BOX), other)
        yield "texture alone", self.scored(self.texture(torch.full_like(x, 0.5), y, 1.0), y)
        yield "noise", self.scored(noise, y)
        yield "mean public image", self.scored(mean, y)

    def photographs(self) -> tuple[Tensor, Tensor]:
        labels = self.data.heldout.labels()
        rows = torch.cat([(labels == c).nonzero()[:EACH, 0] for c in range(self.data.classes)])
        return self.data.heldout.images(rows.numpy()), labels[rows]

    def texture(self, start: Tensor, y: Tensor, box: float) -> Tensor:
        """Within `box` of `start`, what both evaluators take for people y; from `start` with a little noise."""
        x = (start + 0.02 * torch.randn(start.shape, generator=self.rng)).clamp(0, 1).requires_grad_()
        optimiser = torch.optim.Adam([x], RATE)
        for _ in range(STEPS):
            loss = sum(F.cross_entropy(net(x), y) for net in self.judges.nets)
            (x.grad,) = torch.autograd.grad(loss, x)
            optimiser.step()
            x.data = x.data.clamp(start - box, start + box).clamp(0, 1)
        return x.detach()

    def drawn(self) -> Rows:
        """Portraits of people between a private person and a stranger, as they are, coarse, and with texture on a
        stranger; `truth`: whether the private person is the nearest one to the vector that was drawn."""
        how, parts = self.data.meta["render"], []
        draw = np.random.default_rng(0)
        first = [int(np.argmax(self.data.private.y == c)) for c in range(self.data.classes)]
        own = self.data.private.extra["attributes"][first]
        place = self.judges.standard(torch.from_numpy(own))
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            vectors = (1 - share) * own + share * random_people(len(own), draw, how["spread"])
            x = torch.from_numpy(render(vectors, 2, draw, how["resolution"], how["nuisance"])).float() / 255
            y = torch.arange(len(own)).repeat_interleave(2)
            gaps = self.judges.standard(torch.from_numpy(vectors))[:, None] - place
            nearest = (gaps.square() @ self.judges.r2).argmin(1) == torch.arange(len(own))
            x[::2] = F.interpolate(F.adaptive_avg_pool2d(x[::2], x.shape[-1] // 2), x.shape[2:], mode="bilinear")
            parts.append(self.scored(x, y) | {"truth": nearest.repeat_interleave(2).numpy()})
            if share == 1:
                parts.append(self.scored(self.texture(x, y, BOX), y) | {"truth": parts[-1]["truth"]})
        return pooled(parts)


def pooled(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of(run: Path, scenario: str) -> tuple[str, str]:
    """Entries of `evaluators:` and `datasets:` of a scenario of a run."""
    import json

    given = json.loads((run / "params.json").read_text())["scenarios"][scenario]
    return given["judges"], given["dataset"]


def correlation(value: np.ndarray, truth: np.ndarray) -> float:
    return float(np.corrcoef(value, truth)[0, 1])


def area(value: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve; ties count half."""
    return float(placements(value, truth.astype(bool))[0].mean())


def over_people(rows: Rows, names: list[str], truth: str, measure: Callable[..., float]) -> dict[str, np.ndarray]:
    """measure(values, truth) of each metric over people drawn with replacement, (DRAWS + 1,): first of all people."""
    draw = np.random.default_rng(0)
    people = np.unique(rows["person"])
    places = [np.flatnonzero(rows["person"] == p) for p in people]
    found: dict[str, list[float]] = {name: [] for name in names}
    for i in range(DRAWS + 1):
        chosen = range(len(people)) if i == 0 else draw.integers(len(people), size=len(people))
        at = np.concatenate([places[p] for p in chosen])
        for name in names:
            sign = -1 if name.endswith("distance") else 1
            found[name].append(measure(sign * rows[name][at], rows[truth][at]))
    return {name: np.array(values) for name, values in found.items()}


def say(values: np.ndarray) -> str:
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return f"{values[0]:.2f} [{low:.2f}, {high:.2f}]"


def pictures(rows: list[tuple[str, Rows]]) -> list[str]:
    """The first table."""
    names = [name for name in SHOWN if name in rows[0][1]]
    out = ["| picture | n | " + " | ".join(SHOWN[n] for n in names) + " |", "| --- |" + " --- |" * (len(names) + 1)]
    for what, found in rows:
        cells = [f"{found[n].mean():.2f}" if n == "attribute_recovery" else f"{found[n].mean():.0f}"
                 if n == "knn_distance" else f"{100 * found[n].mean():.1f}" for n in names]
        out.append(f"| {what} | {len(found['person'])} | " + " | ".join(cells) + " |")
    return out


def agreements(columns: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """The second table, and what the verifier is better by than the evaluators."""
    out = ["| number | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name in next(iter(columns.values())):
        out.append(f"| {SHOWN[name]} | " + " | ".join(say(found[name]) for found in columns.values()) + " |")
    gains = [say(found["identified"] - found["agreement"]) for found in columns.values()]
    return [*out, "| identified minus both evaluators | " + " | ".join(gains) + " |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run, such as results/laptop")
    parser.add_argument("scenario", help="a scenario of the classifier track")
    args = parser.parse_args()
    bench = Bench(args.run, args.scenario)
    attacks = list(bench.attacks())
    print(*pictures([*bench.known(), *attacks]), "", sep="\n")
    if bench.reference.attributes is None:
        return
    names = [n for n in SHOWN if n in attacks[0][1] and n != "attribute_recovery"]
    seen = pooled([{n: found[n] for n in (*names, "attribute_recovery", "person")} for _, found in attacks])
    drawn = bench.drawn()
    columns = {
        f"reconstructions ({len(seen['person'])}): correlation": over_people(
            seen, names, "attribute_recovery", correlation),
        f"drawn portraits ({len(drawn['person'])}): AUC": over_people(drawn, names, "truth", area),
    }
    print(*agreements(columns), sep="\n")


if __name__ == "__main__":
    main()
