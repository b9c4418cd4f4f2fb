"""The search of ATS: candidates, the two scores, the choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.protocol import Protocol
from inversionbench.defenses.feature_perturbation._search import fit
from inversionbench.defenses.feature_perturbation.ats import Ats, library, transform
from inversionbench.gradients.simulate import Simulator, simulator
from inversionbench.models.federated import Victim

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset

TINY = 1e-5  # added to eigenvalues
WEIGHTS = (0.7, 0.3)  # of mean and variance of the privacy score


def search(
    ats: Ats, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator
) -> list[list[int]]:
    """The best policies of at most `ats.strength` operations: a drawn -1 is none."""
    x, y = data.private.images(), data.private.labels()
    tenth = torch.randperm(len(x), generator=rng)[: max(1, len(x) // 10)]
    trained = fit(factory(rng), x[tenth], y[tenth], ats.fit, rng)  # type: ignore[arg-type]
    fresh = factory(rng)
    own = torch.randperm(len(x), generator=rng)
    images, labels = x[own[: ats.images]], y[own[: ats.images]]
    batch = x[own[-ats.batch :]]
    drawn = torch.randint(-1, len(library()), (ats.candidates, int(ats.strength)), generator=rng)
    drawn[(drawn < 0).all(dim=1), 0] = 0  # a policy does something
    policies = drawn.tolist()
    client = simulator(trained, Protocol())
    privacy = torch.stack([
        privacy_score(client, transform(images, p, rng), labels, trained, ats.points, rng) for p in policies
    ])  # fmt: skip
    accuracy = torch.tensor([accuracy_score(fresh, transform(batch, p, rng)) for p in policies])  # type: ignore[arg-type]
    rank = WEIGHTS[0] * _scaled(privacy.mean(dim=1)) + WEIGHTS[1] * _scaled(privacy.var(dim=1))
    rank[accuracy < accuracy.quantile(ats.quantile)] = torch.inf
    return [[i for i in policies[best] if i >= 0] for best in rank.argsort()[: ats.hybrid]]


@torch.no_grad()
def privacy_score(
    client: Simulator, sent: Tensor, y: Tensor, model: Victim, points: int, rng: torch.Generator
) -> Tensor:
    """S_pri of every image (n,). sent: T(x) (n, c, h, w) in [0, 1]; noise is uniform over the same box."""
    target = model.front(sent)
    low, high = model.front.box
    noise = low + (high - low) * torch.rand(target.shape, generator=rng)
    share = torch.linspace(0, 1, points + 1).view(-1, 1, 1, 1, 1)
    line = ((1 - share) * noise + share * target).flatten(0, 1)
    hot = F.one_hot(y, model.classes).float().repeat(points + 1, 1)
    gradients = client(line[:, None], hot[:, None]).view(points + 1, len(sent), -1)
    parts = [
        F.cosine_similarity(gradients[..., place], gradients[-1, :, place], dim=2, eps=1e-12)
        for place in client.layout.slices
    ]
    return torch.trapezoid(torch.stack(parts).mean(dim=0), dx=1 / points, dim=0)


def accuracy_score(model: Victim, sent: Tensor) -> float:
    """S_acc of a batch (n, c, h, w) in [0, 1]: how well the network tells its images apart before training."""
    x = sent.clone().requires_grad_()
    rows = torch.autograd.grad(model(x).sum(), x)[0].flatten(1).double()
    values = torch.linalg.eigvalsh(torch.corrcoef(rows).nan_to_num(0.0)).clamp_min(0)
    return -float(((values + TINY).log() + 1 / (values + TINY)).sum())


def _scaled(values: Tensor) -> Tensor:
    """To [0, 1] over the candidates."""
    return (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
