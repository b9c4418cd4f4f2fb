"""SecretGen: complete a damaged private photograph of somebody whose name is not known.

Survey 3.2 (generative). Yuan, Wu, Long, Xiao, Li, "SecretGen: Privacy Recovery on Pre-trained Models via
Distribution Discrimination", ECCV 2022. A scenario grants damaged private photographs (`protocol.hints`); the
prior completes them (`completion`, or `completion_target`, trained with the target's features). Each photograph:

1. Completions x_1..x_N of random latents. Every x_j and every copy of it with one of `cells`^2 squares set to
   the public mean is put to the target; p is the mean of all softmax outputs, and the pseudo-label y the most
   probable class of p that is also the verdict on at least one untouched x_j. What lies near the private
   distribution keeps its verdict, other verdicts scatter. transforms: false leaves the copies out (ablation).
2. Starts: among the x_j with verdict y the `keep` most confident; fewer are filled up with random latents.
3. From the first `starts` of them, momentum as GMI, latents in [-1, 1], the critics' crop drawn at each step:
   L = -realism (D_l + D_g) + identity_weight * -log softmax(T(x))_y; the iterate of the lowest identity loss
   wins, over starts too. access BB-S: no gradient of T, so the identity term is left out, the target steers
   the start alone, and the last iterate of the best start is the answer.

label: pseudo | true (the scenario must grant the labels). initial: confident | random; random with
identity_weight 0 is the paper's baseline of completion by the critics alone, with label true that of GMI.
Labels of the answer are the pseudo-labels; whether they are right is the evaluation's to say.

Defaults as published (64-pixel images, mean-filled 16x16 squares). Deviation: none known besides the prior's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, ShareBelowOne
from inversionbench.latent.search import Momentum

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle
    from inversionbench.priors.completion import Completer

Ask = Callable[[Tensor], Tensor]  # images (n, c, h, w) -> softmax outputs (n, classes)


@dataclass(frozen=True)
class Photo:
    """One damaged photograph: x (1, c, h, w), 0 in the hole; mask (1, 1, h, w)."""

    x: Tensor
    mask: Tensor
    prior: Completer

    def complete(self, z: Tensor) -> Tensor:
        return self.prior.net(self.x.expand(len(z), -1, -1, -1), self.mask, z, self.prior.fill)


@dataclass(frozen=True)
class SecretGen(Attack):
    id: ClassVar[str] = "secretgen"
    level: ClassVar[tuple[str, ...]] = ("WB", "BB-S")
    needs: ClassVar[str] = "hints"
    prior: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "completion": ("completion",), "completion_target": ("completion_target",),
    }
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    access: Literal["WB", "BB-S"] = "WB"
    base: Literal["completion", "completion_target"] = "completion_target"
    latents: Count = 200
    transforms: bool = True
    cells: Count = 4
    keep: Count = 5
    starts: Count = 1
    iterations: Count = 1500
    rate: Positive = 0.01
    momentum: ShareBelowOne = 0.9
    identity_weight: NonNegative = 100.0
    realism: NonNegative = 1.0
    label: Literal["pseudo", "true"] = "pseudo"
    initial: Literal["confident", "random"] = "confident"

    def __post_init__(self) -> None:
        if self.access == "BB-S" and self.base == "completion_target":
            raise ValueError("base: completion_target was trained with the target's features, which access BB-S does "
                             "not grant; take completion")  # fmt: skip
        if not 1 <= self.starts <= self.keep:
            raise ValueError(f"starts: expected 1 to keep ({self.keep}), got {self.starts}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior: Completer = knowledge.prior
        where = prior.fill.device
        hints = knowledge.hints.float().to(where) / 255
        mask = knowledge.hint_mask.float().to(where)[None]
        known = knowledge.hint_labels.tolist() if self.label == "true" else [None] * len(hints)
        module = oracle.module().to(where) if self.access == "WB" else None

        def ask(x: Tensor) -> Tensor:
            if module is None:
                return oracle.scores(x.cpu(), phase="init").to(where)
            module.phase = "init"
            with torch.no_grad():
                return torch.cat([module(part).softmax(1) for part in x.split(256)])

        images, labels = [], []
        for hint, y in zip(hints, known, strict=True):
            photo = Photo(hint[None], mask, prior)
            z, y = self.prepare(photo, ask, y, rng)
            if module is not None:
                module.phase = "search"
            images.append(self.search(photo, module, z, y, rng).cpu())
            labels.append(y)
        return Reconstruction(torch.cat(images), torch.tensor(labels), notes={"of": "hints"})

    @torch.no_grad()
    def prepare(self, photo: Photo, ask: Ask, y: int | None, rng: torch.Generator) -> tuple[Tensor, int]:
        """Latents to start from (starts, z_dim), and the label: the given one, or the pseudo-label."""
        z = photo.prior.sample(self.latents, rng).to(photo.x.device)
        x = torch.cat([photo.complete(part) for part in z.split(256)])
        first = ask(x)
        if y is None:
            copies = cut_outs(x, self.cells, photo.prior.fill) if self.transforms else []
            y = pseudo_label(first, [ask(copy) for copy in copies])
        fresh = photo.prior.sample(self.keep, rng).to(z)
        if self.initial == "random":
            return fresh[: self.starts], y
        fits = (first.argmax(1) == y).nonzero()[:, 0]
        best = fits[first[fits, y].argsort(descending=True, stable=True)][: self.keep]
        return torch.cat([z[best], fresh])[: self.starts], y

    def search(self, photo: Photo, module: torch.nn.Module | None, z: Tensor, y: int, rng: torch.Generator) -> Tensor:
        """Step 3: the completed photograph (1, c, h, w). z: (starts, z_dim)."""
        z = z.clone().requires_grad_(True)
        optimiser = Momentum([z], self.rate, self.momentum)
        labels = torch.full((len(z),), y, device=z.device)
        lowest = torch.full((len(z),), torch.inf, device=z.device)
        best = z.detach().clone()
        for _ in range(self.iterations):
            x = photo.complete(z)
            loss = -self.realism * photo.prior.realism(x, photo.mask, rng)
            if module is not None and self.identity_weight:
                identity = F.cross_entropy(module(x), labels, reduction="none")
                better = identity.detach() < lowest
                best[better], lowest[better] = z.detach()[better], identity.detach()[better]
                loss = loss + self.identity_weight * identity
            (z.grad,) = torch.autograd.grad(loss.sum(), [z])
            optimiser.step()
            with torch.no_grad():
                z.clamp_(-1, 1)
        informed = bool(lowest.isfinite().all())
        chosen = best[lowest.argmin()] if informed else z.detach()[0]
        with torch.no_grad():
            return photo.complete(chosen[None])


def cut_outs(x: Tensor, cells: int, fill: Tensor) -> list[Tensor]:
    """Copies of images x (n, c, h, w) with one square of a cells x cells grid filled: cells^2 tensors."""
    h, w = x.shape[2] // cells, x.shape[3] // cells
    out = []
    for i in range(cells * cells):
        copy = x.clone()
        row, column = divmod(i, cells)
        copy[:, :, row * h : (row + 1) * h, column * w : (column + 1) * w] = fill
        out.append(copy)
    return out


def pseudo_label(first: Tensor, others: list[Tensor]) -> int:
    """The most probable class on average that is the verdict on some untouched completion.

    first: softmax outputs of the completions (n, classes); others: of their changed copies, the same shape.

    >>> first = torch.tensor([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]])
    >>> changed = torch.tensor([[0.0, 0.1, 0.9], [0.0, 0.5, 0.5]])
    >>> pseudo_label(first, []), pseudo_label(first, [changed] * 3)
    (0, 1)
    """
    mean = torch.stack([first, *others]).mean((0, 1))
    seen = torch.zeros_like(mean, dtype=torch.bool)
    seen[first.argmax(1)] = True
    return int(torch.where(seen, mean, -1.0).argmax())
