"""ATS, automatic transformation search (survey 4.1; Gao, Guo, Zhang, Qiu, Wen, Liu, CVPR 2021).

A policy is a list of operations applied in order to every image before its gradient is taken, always (only directions
are random); a hybrid is several policies, of which each image draws one. They are searched once per network and data
set, by two scores, among random policies:

privacy   S_pri, lower is better: on the line from uniform noise x_0 to T(x), x_j = (1 - j/K) x_0 + (j/K) T(x), the
          mean over layers of cos(grad L(x_j), grad L(T(x))), as the area under its curve over j / K; on a network
          trained a little on a tenth of the data. A flat curve gives gradient matching no slope towards T(x).
accuracy  S_acc, higher is better: J the Jacobian rows of the summed logits at a batch of T(x), on an untrained network,
          v the eigenvalues of its correlation matrix: - sum_i [log(v_i + e) + 1 / (v_i + e)], e = 1e-5

Policies below the `quantile` of S_acc are dropped, the rest ranked by 0.7 mean + 0.3 variance of S_pri over images,
both scaled to [0, 1]; the best `hybrid` policies are used together.

strength: operations in a policy, 1 to 3 (0: off). policy: the choice as indices into `library()`, like
"3-1-7+43-18-18"; "" searches, a given one is a fixed policy and `searched` says so. Protection is measured against the
original; `to_transformed` in the records shows that the transformed image may leak as before, early in training most.

Measured on the small convolutional network (14 random policies, 8 to 10 photographs, five networks): the rank
correlation of S_pri with the attack's PSNR to T(x) was 0.63, -0.15, 0.06, -0.14 and 0.02, with the PSNR to the original
about 0. The 95 % interval of a correlation of 14 points is about +-0.53: that the score predicts the attack, as the
paper says, is not shown here, nor that it does not.

Deviations: 150 candidates for 1,500; 20 images, K = 10, a threshold relative to the candidates; borders are reflected;
the library of 50 has our numbering (11 operations at four magnitudes and six more); the usual crop and flip is not
added, since the undefended client has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import Count, Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.data.base import Dataset


@dataclass(frozen=True)
class Ats(Defense):
    """candidates: policies scored. points: K. images: for S_pri. batch: images for S_acc. fit: training steps of the
    network for S_pri. quantile: of S_acc below which policies are dropped. hybrid: policies kept.
    """

    id = "ats"
    hooks = frozenset({"train_transform"})
    federated = True
    inputs = ("image",)
    budget = ("candidates", "images")

    policy: str = ""
    candidates: Count = 150
    points: Count = 10
    images: Count = 20
    batch: Count = 64
    fit: Count = 60
    quantile: Share = 0.3
    hybrid: Count = 2
    searched: bool = False

    def __post_init__(self) -> None:
        if self.strength not in (0, 1, 2, 3):
            raise ValueError(f"ats: strength is a number of operations, 0 to 3, got {self.strength}")

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        if self.strength == 0 or self.policy:
            return self
        from inversionbench.defenses.feature_perturbation._policy_search import search

        found = search(self, data, factory, rng)
        return replace(self, policy="+".join("-".join(map(str, p)) for p in found), searched=True)

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        import torch

        if self.strength == 0:
            return x, y
        if not self.policy:
            raise ValueError("ats: no policy yet: call prepare() first, or give one")
        policies = read(self.policy)
        drawn = torch.randint(len(policies), (len(x),), generator=rng).tolist()
        return torch.cat([transform(one[None], policies[i], rng) for one, i in zip(x, drawn)]), y

    def public_knowledge(self) -> dict[str, Any]:
        """The policies, as (operation, amount) in their order; which one an image drew stays with the client."""
        pairs = library()
        named = [[list(pairs[i]) for i in p] for p in read(self.policy)]
        return {"policy": self.policy, "operations": named, "searched": self.searched, "directions": "random"}


def read(policy: str) -> list[list[int]]:
    """Policies of a hybrid: lists of indices into the library.

    >>> read("3-1+43-18-18"), read("")
    ([[3, 1], [43, 18, 18]], [])
    """
    return [[int(i) for i in part.split("-")] for part in policy.split("+") if part]


def library() -> list[tuple[str, float]]:
    """50 pairs (operation, amount); amounts of operations with two directions are those of one of them.

    >>> len(library()), library()[0], library()[47]
    (50, ('shear_x', 0.033), ('shear_x', 0.3))
    """
    ranged = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "color", "contrast", "sharpness",
              "brightness", "posterize", "solarize")  # fmt: skip
    pairs = [(name, amount(name, level)) for name in ranged for level in (1, 3, 5, 8)]
    pairs += [(name, 0.0) for name in ("autocontrast", "equalize", "invert")]
    return [*pairs, *((name, amount(name, 9)) for name in ("shear_x", "translate_x", "rotate"))]


def amount(name: str, level: int) -> float:
    """Magnitude index 0 to 9 as what the operation takes (a deviation from 1 for enhancements)."""
    share = level / 9
    greatest = {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331, "rotate": 30.0}
    if name == "posterize":
        return 8 - 4 * share
    if name == "solarize":
        return round(1 - share, 3)
    return round(share * greatest.get(name, 0.5), 3)


def transform(x: Tensor, policy: list[int], rng: torch.Generator) -> Tensor:
    """One policy on a batch (n, c, h, w), directions drawn once for the batch."""
    import torch

    from inversionbench.models.operations import ENHANCEMENTS, apply, signed

    pairs = library()
    for index in policy:
        if index < 0:
            continue
        name, value = pairs[index]
        if signed(name) and int(torch.randint(2, (1,), generator=rng)):
            value = -value
        x = apply(x, name, 1 + value if name in ENHANCEMENTS else value)
    return x
