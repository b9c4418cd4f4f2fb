"""Judging reconstructions of classes: a verifier, two evaluators that must agree, distances, attributes, controls.

Headline: `identified`, the share of reconstructions in which a verifier that learnt from public people alone finds the
attacked person most alike of all private ones; `verified`, how many are alike at all (training/verifier.py), and both
by dlib for real faces where it is asked for (`dlib_identified`, `dlib_verified`). Beside them: `agreement`, the share
that both evaluators recognise, which counts texture that convinces networks of the private people, too; each evaluator
alone (`top1`, `second`, `top5`), the target's own opinion (`target_top1`; far above the evaluators', it means
adversarial noise and not inversion), `knn_distance` and `feature_distance` in the first evaluator's features,
and on data with known attributes `attribute_recovery`. Among the facts: precision, recall, density and coverage
within the attacked classes (`prdc`, in the same features).

attribute_recovery of an image x of person p, with the reader's standardised attributes a(x), the true ones
t(p), and weights w = the share of each attribute's variance that the reader explains on people it never saw:

    d(x, q) = sum_k w_k (a_k(x) - t_k(q))^2          score = 1 - d(x, p) / mean over other people q of d(x, q)

0: as far from the person as from any other (an image that knows nothing, or noise far from everybody);
1: exactly the person; below 0: nearer to others. True photographs give the ceiling, random ones the floor.

Answers to damaged photographs (notes "of": "hints") are judged against the person in the photograph, whatever
the attack took him for (`label_recovery`), and pixel by pixel in the hole (`hole_psnr`).

An evaluator that knows the people no better than the target caps below what there is to see. Each is compared with the
attacked target over the held-out photographs, pair by pair; one that is not shown to be the more accurate is named in
the record's `warnings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.quantity import Quantity
from inversionbench.core.scenario import Evaluation
from inversionbench.metrics._aggregate import interval
from inversionbench.metrics.attack_accuracy import agreement, hits
from inversionbench.metrics.base import Unavailable
from inversionbench.metrics.feature_distance import feature_distance
from inversionbench.metrics.knn_distance import knn_distance, length_and_direction
from inversionbench.metrics.prdc import prdc_per_class
from inversionbench.metrics.psnr import psnr
from inversionbench.models.completion import hole
from inversionbench.tracks.classifier.extraction import knowledge_extraction
from inversionbench.training.evaluators import Judges, outputs

if TYPE_CHECKING:
    from inversionbench.core.attack import Reconstruction
    from inversionbench.data.base import Dataset, Part

ATTRIBUTE_RECOVERY = Quantity(
    "attribute_recovery", "attribute recovery", digits=2, direction="higher",
    note="1: the attributes read off are the person's; 0: they are as far from this person as from others",
)  # fmt: skip
PEOPLE = Quantity(
    "people", "people", "%", 0, 100, "higher",
    "how often people chose it over another person's reconstruction by the same attack (blind test; chance 50)",
)  # fmt: skip
CONTROL_SIZE = 4  # control images per attacked class
GALLERY = 12


@dataclass(frozen=True)
class Reference:
    """What the judges see in the private training images: features (m, d), classes (m,), attributes of each
    class (classes, k) on the reader's scale, or None."""

    features: Tensor
    classes: Tensor
    attributes: Tensor | None


@dataclass(frozen=True)
class Scores:
    """Metric name -> values (n,), and the first judge's features (n, d)."""

    values: dict[str, np.ndarray]
    features: Tensor


def refer(judges: Judges, private: Part) -> Reference:
    """Looked at once for all cells that the same judges judge."""
    if id(private) not in judges.references:
        judges.references[id(private)] = (private, _look(judges, private))  # who holds the part keeps its id unique
    return judges.references[id(private)][1]


def _look(judges: Judges, private: Part) -> Reference:
    y = private.labels()
    _, features = judges.see(torch.from_numpy(np.array(private.x)))
    attributes = None
    if judges.attribute_names and "attributes" in private.extra:
        first = [int((y == c).nonzero()[0, 0]) for c in range(int(y.max()) + 1)]
        attributes = judges.standard(torch.from_numpy(np.array(private.extra["attributes"][first])).float())
    return Reference(features, y, attributes)


def attribute_recovery(read: Tensor, y: Tensor, people: Tensor, weights: Tensor) -> Tensor:
    """The score of the module's docstring. read: (n, k); y: (n,) person of each; people: (m, k), m > 1;
    weights: (k,) >= 0. Returns (n,), at most 1.

    >>> people = torch.tensor([[0.0], [1.0], [3.0]])
    >>> attribute_recovery(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0]), people, torch.ones(1))
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    gaps = (read.double()[:, None] - people.double()[None]).square() @ weights.double()  # (n, m)
    own = gaps.gather(1, y[:, None])[:, 0]
    others = (gaps.sum(1) - own) / (len(people) - 1)
    return 1 - own / others.clamp_min(1e-12)


def score(judges: Judges, reference: Reference, x: Tensor, y: Tensor, target: nn.Module | None = None) -> Scores:
    """All metrics of images x (n, c, h, w) in [0, 1] that claim to show classes y (n,); without a target those that
    curves hold."""
    (first, second), features = judges.see(x)
    values = {
        "agreement": agreement(first, second, y),
        "top1": hits(first, y),
        "second": hits(second, y),
        "knn_distance": knn_distance(features, y, reference.features, reference.classes),
        "feature_distance": feature_distance(features, y, reference.features, reference.classes),
    }
    if first.shape[1] > 10:
        values["top5"] = hits(first, y, 5)
    if reference.attributes is not None:
        values["attribute_recovery"] = attribute_recovery(judges.read(x), y, reference.attributes, judges.r2)
    for prefix, gallery in judges.galleries.items():
        if target is not None or not gallery.slow:
            values |= {prefix + name: hit for name, hit in gallery.scores(x, y).items()}
    if target is not None:
        values["target_top1"] = hits(outputs(target, x), y)
    return Scores({name: value.double().numpy() for name, value in values.items()}, features)


def evaluate(
    reconstruction: Reconstruction, target: nn.Module, data: Dataset, judges: Judges, seed: int,
    truth: Mapping[str, Any] | None = None, of: str = "this scenario",
) -> Evaluation:
    """Metrics, controls, curves and pictures of one reconstruction. target: the attacked model, loaded; truth:
    what the track hid of damaged photographs; of: the target in words."""
    rng = torch.Generator().manual_seed(seed)
    hints = truth if truth and reconstruction.notes.get("of") == "hints" else None
    y = hints["hint_labels"] if hints else reconstruction.labels
    reference, classes = refer(judges, data.private), y.unique()
    controls = _controls(judges, reference, target, data, classes, rng)  # first: every attack gets the same ones
    failed = reconstruction.failed if reconstruction.failed is not None else torch.zeros(len(y), dtype=torch.bool)
    x, broken = _presentable(reconstruction.data, failed, rng)
    scores = score(judges, reference, x, y, target)
    values = {name: _without(value, broken, name) for name, value in scores.values.items()}
    photos = data.private.images(hints["hint_rows"].numpy()) if hints else None
    if photos is not None:
        values |= in_the_hole(x, photos) | {"label_recovery": (reconstruction.labels == y).double().numpy()}
    curves: dict[str, list[tuple[int, np.ndarray]]] = {}
    for budget, images in reconstruction.checkpoints:
        shown, bad = _presentable(images, failed, rng)
        for name, value in score(judges, reference, shown, y).values.items():
            curves.setdefault(name, []).append((budget, _without(value, bad, name)))
    facts = _facts(judges, target, data, x, y, reference, int(broken.sum()), of)
    anchors = {"same_person": "private_heldout", "other_person": "other_person"}
    facts["knn_anchors"] = {k: float(controls[v]["knn_distance"].mean()) for k, v in anchors.items()}
    parts = length_and_direction(scores.features, y, reference.features, reference.classes)
    facts["knn_parts"] = {name: float(part.mean()) for name, part in zip(("length", "cosine"), parts)}
    spread = prdc_per_class(reference.features, reference.classes, scores.features, y)
    facts["prdc"] = {"unavailable": spread.reason} if isinstance(spread, Unavailable) else spread
    if photos is not None:
        mean = torch.from_numpy(data.public.x.mean((0, 2, 3), dtype=np.float64) / 255).float().view(1, -1, 1, 1)
        facts["hole_psnr_of_mean"] = float(in_the_hole(mean.expand_as(photos), photos)["hole_psnr"].mean())
    if reconstruction.notes.get("extract"):
        facts["knowledge_extraction"] = knowledge_extraction(x, y, data, rng)
    unavailable = {}
    if data.classes <= 10:
        unavailable["top5"] = "top-5 says nothing with 10 classes or fewer"
    if reference.attributes is None:
        unavailable["attribute_recovery"] = "the data set has no known attributes"
    for prefix, reason in judges.absent.items():
        unavailable |= {f"{prefix}identified": reason, f"{prefix}verified": reason}
    return Evaluation(
        metrics=values, groups=y.numpy(), curves=curves, unavailable=unavailable,
        controls=controls, facts=facts,
        gallery=_gallery(x, y, scores.features, reference, data, photos, failed),
    )


def in_the_hole(x: Tensor, photos: Tensor) -> dict[str, np.ndarray]:
    """`hole_psnr` of completions x against the photographs, both (n, c, h, w): known pixels are copies."""
    missing = hole(*x.shape[2:])[0].bool()
    rows, columns = missing.any(1), missing.any(0)
    return {"hole_psnr": psnr(photos[:, :, rows][..., columns], x[:, :, rows][..., columns]).numpy()}


def _presentable(x: Tensor, failed: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images in [0, 1]; those of failed or non-finite rows become noise and are marked."""
    broken = failed | ~torch.isfinite(x).flatten(1).all(1)
    noise = torch.rand(x.shape, generator=rng)
    return torch.where(broken.view(-1, 1, 1, 1), noise, x.nan_to_num().clamp(0, 1)), broken


def _without(values: np.ndarray, broken: Tensor, name: str) -> np.ndarray:
    """Failures recognise nothing: 0 for shares; distances and attributes are those of noise."""
    if name.endswith("distance") or name == "attribute_recovery":
        return values
    return np.where(broken.numpy(), 0.0, values)


def _controls(
    judges: Judges, reference: Reference, target: nn.Module, data: Dataset, classes: Tensor, rng: torch.Generator
) -> dict[str, dict[str, np.ndarray]]:
    """The same scores of images that are the truth, and of images that know nothing."""
    y = classes.repeat_interleave(CONTROL_SIZE)
    held = data.heldout.labels()
    truth = torch.cat([_draw((held == c).nonzero()[:, 0], CONTROL_SIZE, rng) for c in classes.tolist()])
    any_public = torch.randint(len(data.public), (len(y),), generator=rng)
    mean = torch.from_numpy(data.public.x.mean(0, dtype=np.float64) / 255).float()
    images = {
        "private_heldout": data.heldout.images(truth.numpy()),
        "random_public": data.public.images(any_public.numpy()),
        "mean_public": mean.expand(len(y), -1, -1, -1),
        "noise": torch.rand(len(y), *data.shape, generator=rng),
    }
    out = {name: score(judges, reference, x, y, target).values for name, x in images.items()}
    wrong = classes.roll(1).repeat_interleave(CONTROL_SIZE)  # photographs of another attacked person
    out["other_person"] = score(judges, reference, images["private_heldout"], wrong, target).values
    return out


def _draw(index: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """n of index, without repeats where there are enough."""
    order = torch.randperm(len(index), generator=rng)
    return index[order.repeat(-(-n // len(order)))[:n]]


def _facts(
    judges: Judges, target: nn.Module, data: Dataset, x: Tensor, y: Tensor, reference: Reference, broken: int, of: str
) -> dict[str, Any]:
    own = hits(outputs(target, data.heldout.images()), data.heldout.labels()).double().numpy()
    facts: dict[str, Any] = {
        "evaluators": dict(zip(judges.names, judges.accuracies, strict=True)), "heldout": judges.heldout,
        "target_accuracy": float(own.mean()), "failures": broken, "chance": 1 / data.classes,
    }
    weak = [weakness(n, h, own, of) for n, h in zip(judges.names, judges.hits, strict=True)]
    if warnings := [sentence for sentence in weak if sentence]:
        facts["warnings"] = warnings
    if reference.attributes is not None and len(y.unique()) > 2:
        facts["attribute_correlation"] = _correlations(judges, x, y, reference.attributes)
    return facts


def weakness(name: str, judge: np.ndarray, target: np.ndarray, of: str) -> str:
    """A sentence where the evaluator `name` is not shown to be more accurate than the target `of`, else "".

    judge, target: (n,) 1 where each names the person in a held-out photograph, in one order. More accurate: the
    95 % interval of the mean difference, over photographs, lies above 0.
    """
    low, high = interval(judge - target)
    if low > 0:
        return ""
    how = "is less accurate than" if high < 0 else "is not shown to be more accurate than"
    return (f"evaluator {name} {how} the target of {of}: {judge.mean():.4f} against {target.mean():.4f} of "
            f"{len(judge)} held-out photographs, difference {100 * (judge - target).mean():+.1f} points "
            f"[{100 * low:.1f}, {100 * high:.1f}]; what it recognises caps below what the target knows")


def _correlations(judges: Judges, x: Tensor, y: Tensor, people: Tensor) -> dict[str, float]:
    """Correlation over reconstructions between read and true attribute, where the reader can read it."""
    read, true = judges.read(x), people[y]
    out = {}
    for k, name in enumerate(judges.attribute_names):
        if judges.r2[k] > 0.25 and true[:, k].std() > 0 and read[:, k].std() > 0:
            out[name] = float(torch.corrcoef(torch.stack([read[:, k], true[:, k]]))[0, 1])
    return out


def _gallery(
    x: Tensor, y: Tensor, features: Tensor, reference: Reference, data: Dataset, photos: Tensor | None,
    failed: Tensor,
) -> dict[str, Tensor]:
    """One reconstruction per class for the first classes: a private photograph (of photos (n, c, h, w), the
    one that was damaged), it, and the nearest one; and which of them never started (k,)."""
    rows = [int((y == c).nonzero()[0, 0]) for c in y.unique()[:GALLERY].tolist()]
    near, some = [], []
    for row in rows:
        own = (reference.classes == y[row]).nonzero()[:, 0]
        gap = (reference.features[own] - features[row]).square().sum(1)
        near.append(int(own[gap.argmin()]))
        some.append(int(own[0]))
    return {
        "original": data.private.images(some) if photos is None else photos[rows],
        "reconstruction": x[rows],
        "nearest": data.private.images(near),
        "unstarted": failed[rows].float(),
    }
