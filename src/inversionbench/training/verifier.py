"""The verifier: who is it in the picture, asked of a network that no private image has taught.

An embedding (`models.embedding`) learns to tell the people of the public part apart, from photographs made worse as
reconstructions are (`_degrade`), and then says how alike an image is to the private photographs of each private person:
cosines with the mean of their embeddings. It is of another architecture than all classifiers here, and what it learnt
is what tells people apart, not what tells these people apart: texture that convinces networks of the private people
says nothing to it, and coarse or blurred images of the right person still do. Where the public part has other classes
than people (digits, clothes), these teach it; where it says nothing of who is in its images, there is no verifier.

State: plain tensors and numbers, or {"reason": why there is none}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.defense import Defense
from inversionbench.core.device import device
from inversionbench.core.recipe import Recipe
from inversionbench.metrics.identified import identified
from inversionbench.metrics.verified import threshold, verified
from inversionbench.models.classifiers import freeze
from inversionbench.models.embedding import Embedding
from inversionbench.training._degrade import LEARN, Linear, degrade
from inversionbench.training.loop import as_float, fit

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Dataset, Part

BOX, EVERY = 0.1, 3  # of texture: its largest value, and which images of a batch get it
Embed = Callable[[Tensor], Tensor]  # images (n, c, h, w), float in [0, 1] or uint8 -> unit vectors (n, d), on the CPU


@dataclass(frozen=True)
class _Lesson(Defense):
    """What the verifier learns from, in the training loop's place for a defense: photographs made worse, every third
    with texture. taught: the network, once it is built."""

    generator: Linear = field(kw_only=True)
    taught: list[Embedding] = field(kw_only=True, default_factory=list)

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        self.taught.append(factory())  # type: ignore[arg-type]
        return self.taught[0]

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        x = degrade(x, self.generator, rng)
        textured = self.texture(x[::EVERY], y.roll(1)[::EVERY], rng)
        return x.index_copy(0, torch.arange(0, len(x), EVERY, device=x.device), textured), y

    def texture(self, x: Tensor, claimed: Tensor, rng: torch.Generator) -> Tensor:
        """Images changed by at most `BOX` a pixel, towards somebody else as the network sees it now: one step along the
        sign of the gradient from a random start (Wong, Rice, Kolter: Fast Is Better than Free, ICLR 2020)."""
        net, box = self.taught[0], BOX * float(torch.rand(1, generator=rng))
        start = x + box * (2 * torch.rand(x.shape, generator=rng).to(x) - 1)
        net.eval().requires_grad_(False)
        start.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(net.trace(start).logits, claimed), start)
        net.train().requires_grad_(True)
        moved = start.detach() - 1.25 * box * slope.sign()
        return torch.minimum(torch.maximum(moved, x - box), x + box).clamp(0, 1)


def train_verifier(
    given: Mapping[str, Any], data: Dataset, rng: torch.Generator, progress: Progress
) -> dict[str, Any]:
    """Train on the public part, then look at the private people (`enrol`). given: `verifier` of the evaluators'
    options; `passes` images are seen in all, in whole epochs, one at least."""
    y = who(data.public)
    if isinstance(y, str):
        return {"reason": y}
    rows = torch.arange(len(y))
    if len(y) > given["passes"]:  # more than it will see
        rows = torch.randperm(len(y), generator=rng)[: given["passes"]].sort().values
    x, y, people = torch.from_numpy(np.array(data.public.x[rows.numpy()])).to(device()), y[rows], int(y.max()) + 1
    some = torch.randperm(len(x), generator=rng)[:LEARN].to(x.device)
    recipe = Recipe(**{"epochs": max(1, round(given["passes"] / len(x))), **given["training"]})
    net = fit(
        lambda: Embedding(data.shape[0], people, given["width"], given["features"]), x, y.to(x.device), people, recipe,
        _Lesson(generator=Linear.of(as_float(x[some]))), rng, progress, "verifier",
    )
    state = {
        "model": {"width": given["width"], "features": given["features"], "people": people, "channels": data.shape[0]},
        "state": {k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()},
        "flip": recipe.flip, "photographs": len(x),
    }
    return state | enrol(Verifier(state).embed, data)


def who(public: Part) -> Tensor | str:
    """Who or what each public image shows, as int64 (n,) from 0 without gaps; or why nothing can be learnt from it."""
    known = next((public.extra[name] for name in ("identity", "label") if name in public.extra), None)
    if len(public) and np.min(public.y) >= 0:  # samples apart, classes shared
        known = public.y
    if known is None:
        return "the public images do not say whom they show, so that no verifier can learn from them"
    names, y = np.unique(np.array(known), return_inverse=True)
    if len(names) < 2 or len(names) == len(y):
        return f"{len(names)} people in {len(y)} public images: a verifier needs two people, and several images of one"
    return torch.from_numpy(y.reshape(-1))


def enrol(embed: Embed, data: Dataset) -> dict[str, Any]:
    """The private people as an embedding sees them: `templates` (classes, d), the mean direction of their private
    photographs; `threshold`, see `metrics.verified`; `heldout`: what held-out photographs score, the ceiling."""
    y = data.private.labels()
    own = embed(torch.from_numpy(np.array(data.private.x)))
    templates = F.normalize(torch.stack([own[y == c].mean(0) for c in range(data.classes)]))
    seen, y = embed(torch.from_numpy(np.array(data.heldout.x))) @ templates.T, data.heldout.labels()
    limit = threshold(seen, y)
    shares = {"identified": identified(seen, y), "verified": verified(seen, y, limit)}
    return {
        "templates": templates, "threshold": limit,
        "heldout": {name: float(hit.double().mean()) for name, hit in shares.items()},
    }  # fmt: skip


class Gallery:
    """The private people, enrolled: how alike images are to each of them, by `embed`. slow: costs seconds."""

    slow: ClassVar[bool] = False

    def __init__(self, state: Mapping[str, Any]):
        self.templates: Tensor = state.get("templates", torch.empty(0))  # of one that only embeds: nobody yet
        self.threshold: float = state.get("threshold", float("inf"))

    def embed(self, x: Tensor) -> Tensor:
        """See `Embed`."""
        raise NotImplementedError

    def scores(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """`identified` and `verified` of images x (n, c, h, w) in [0, 1] that claim to show people y, bool (n,)."""
        seen = self.embed(x) @ self.templates.T
        return {"identified": identified(seen, y), "verified": verified(seen, y, self.threshold)}


class Verifier(Gallery):
    """The network of `train_verifier`, loaded."""

    def __init__(self, state: Mapping[str, Any]):
        super().__init__(state)
        with torch.random.fork_rng(devices=[]):
            net = Embedding(**state["model"])
        net.load_state_dict(state["state"])
        self.net, self.flip = freeze(net).to(device()), state["flip"]

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        out = []
        for part in x.split(256):
            part = as_float(part.to(device()))
            seen = self.net(part) + self.net(part.flip(-1)) if self.flip else self.net(part)
            out.append(F.normalize(seen).cpu())
        return torch.cat(out)
