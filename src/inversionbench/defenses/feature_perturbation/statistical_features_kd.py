"""Statistical features via knowledge distillation (survey 4.1; Gao, Zhu, Ye, Zhou, KBS 2024): reconstruction.

Clients share a light student that never sees an image, only sums over groups of at least m of them:

    group means  mu = mean x, mean labels c, teacher's mean softened answer p = mean softmax(T(x) / tau)
    student S, loss  (1 - beta) CE(S(mu), c) + beta tau^2 KL(p || softmax(S(mu) / tau))

T: the scenario's network, trained by each client on its own raw images, never shared. S: pooled pixels, one hidden
layer. Groups are drawn once per client, inside a class where it has m images; small classes are pooled. The client
sends the student's gradient; prediction uses the student on an unchanged image.

strength: m (0: off, the ordinary network; 1: the student on single images, a control). What the gradient gives away
is the group mean: `to_transformed` in the records is the PSNR to it. That is still leakage of a class. For one image in
one step the student's first layer gives the pooled mean away exactly (`skip_bottleneck`; measured on four photographs
and groups of five: 31.3 dB to the mean where a search reaches 20.2, 14.1 to the image where it reaches 11.7).

The abstract gives summation form, statistics and distillation; the construction is ours. The feature map is linear
(average pooling), so a mean of features is the feature of the mean; spreads are not sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense, Step
from inversionbench.core.ranges import Count, Positive, Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.data.base import Dataset
    from inversionbench.defenses.feature_perturbation._groups import Statistics


@dataclass(frozen=True)
class StatisticalFeaturesKd(Defense):
    """pool: side of the pooled blocks. hidden: of the student. tau, beta: of the distillation. steps: training steps
    of each client's teacher.
    """

    id = "statistical_features_kd"
    hooks = frozenset({"train_transform", "build_model", "loss"})
    federated = True
    inputs = ("image",)
    budget = ("steps",)

    pool: Count = 2
    hidden: Count = 128
    tau: Positive = 3.0
    beta: Share = 0.7
    steps: Count = 60

    def __post_init__(self) -> None:
        if self.strength < 0 or self.strength != int(self.strength) or not 0 <= self.beta <= 1 or self.tau <= 0:
            raise ValueError("statistical_features_kd: strength is a whole number of images, beta in [0, 1], tau > 0, "
                             f"got {self.strength}, {self.beta}, {self.tau}")  # fmt: skip

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        from inversionbench.defenses.feature_perturbation._local import with_notes

        return with_notes(self, factory=factory, classes=data.classes) if self.strength else self

    def for_client(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Defense:
        import torch

        from inversionbench.defenses.feature_perturbation._groups import statistics
        from inversionbench.defenses.feature_perturbation._local import with_notes
        from inversionbench.defenses.feature_perturbation._search import fit

        if self.strength == 0:
            return self
        if "factory" not in self.__dict__:
            raise ValueError("statistical_features_kd: call prepare() before for_client()")
        teacher = fit(self.__dict__["factory"](rng), x, y, self.steps, rng)
        with torch.no_grad():
            answers = (teacher(x) / self.tau).softmax(dim=1)
        return with_notes(self, held=statistics(x, y, answers, self.__dict__["classes"], int(self.strength), rng))

    @property
    def statistics(self) -> Statistics:
        """Of the client that runs this; `ValueError` outside a client."""
        if "held" not in self.__dict__:
            raise ValueError("statistical_features_kd: no client's statistics: call for_client() first")
        return self.__dict__["held"]

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        """The student, drawn from the weights that the undefended network would have started with."""
        if self.strength == 0:
            return factory()
        import torch
        from torch import nn

        from inversionbench.models.federated import Victim

        given: Victim = factory()  # type: ignore[assignment]
        channels, height, width = given.shape
        inputs = channels * (height // self.pool) * (width // self.pool)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(given.head.weight.detach().view(torch.int32).sum()) % 2**31)
            layers = [nn.AvgPool2d(self.pool), nn.Flatten(), nn.Linear(inputs, self.hidden), nn.ReLU(),
                      nn.Linear(self.hidden, given.classes)]  # fmt: skip
        return Victim(nn.Sequential(*layers), given.shape, given.classes).eval()

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        """The means of the groups that hold these images, and their mean labels."""
        if self.strength == 0:
            return x, y
        held = self.statistics
        index = held.groups_of(x)
        return held.means[index], held.labels[index]

    def loss(self, ctx: Step) -> Tensor:
        from torch.nn import functional as F

        if self.strength == 0:
            return super().loss(ctx)
        taught = self.statistics.taught[self.statistics.groups_behind(ctx.x)]
        soft = (ctx.logits / self.tau).log_softmax(dim=1)
        distilled = self.tau**2 * F.kl_div(soft, taught, reduction="batchmean")
        return (1 - self.beta) * F.cross_entropy(ctx.logits, ctx.y) + self.beta * distilled

    def public_knowledge(self) -> dict[str, Any]:
        """The construction; groups and teacher stay with the client."""
        return {"group": int(self.strength), "pool": self.pool, "tau": self.tau, "beta": self.beta,
                "input": "means of groups, mean labels"}  # fmt: skip
