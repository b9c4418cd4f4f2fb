"""Image augmentation as a defense (survey 4.1; Shin, Boyapati, Suo, Kang, Son, Cluster Computing 2023): reconstruction.

Every image is changed by one operation before its gradient is taken, the operation being chosen for its class by an
attack on the defender's own images:

    for each class c and operation a at magnitude m:  E(c, a) = squared error, to the original, of gradient inversion
    for each a:  A(a) = accuracy, on unchanged images, of a network trained with a at m
    a_c = the largest E(c, a) among the a with A(a) >= A(none) - tolerance; the most accurate a where there is none

strength: the magnitude m, 1 to 9 of 10 (0: off): up to 30 degrees, slope 0.3, a third of the side, factors 1 +- 0.9,
solarize threshold 1 to 0, posterize 8 to 4 bits. Directions are drawn at random. The grid is run on images that are
neither attacked nor scored (the evaluation part), the training on the private part; both with few steps.

policy: the choice, one operation per class, comma separated; "" searches. The list of operations is the usual one for
random augmentation without those that hardly change an image; the paper's own list could not be read.
The gradient still gives away the transformed image: `to_transformed` in the records says how well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import Count, NonNegative

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.data.base import Dataset


@dataclass(frozen=True)
class ImageAugmentation(Defense):
    """operations: to choose from. tolerance: accuracy that may be lost. images: attacked per class and operation.
    steps: of each attack. fit: training steps of each network.
    """

    id = "image_augmentation"
    hooks = frozenset({"train_transform"})
    federated = True
    inputs = ("image",)

    policy: str = ""
    operations: str = "rotate,shear_x,shear_y,translate_x,translate_y,brightness,contrast,solarize"
    tolerance: NonNegative = 0.02
    images: Count = 3
    steps: Count = 60
    fit: Count = 60

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 10:
            raise ValueError(f"image_augmentation: strength is a magnitude in [0, 10], got {self.strength}")

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        if self.strength == 0 or self.policy:
            return self
        errors, accuracies = self.grid(data, factory, rng)
        names = self.operations.split(",")
        fair = accuracies[1:] >= accuracies[0] - self.tolerance
        if not bool(fair.any()):
            fair = accuracies[1:] == accuracies[1:].max()
        chosen = errors.masked_fill(~fair, -1.0).argmax(dim=1)
        return replace(self, policy=",".join(names[i] for i in chosen))

    def grid(
        self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(E (classes, operations), A (1 + operations,) with the untouched training first)."""
        import torch

        from inversionbench.defenses.feature_perturbation._search import accuracy, attack_errors, fit

        names = self.operations.split(",")
        x, y = data.evaluation.images(), data.evaluation.labels()
        own = torch.cat([(y == c).nonzero()[: self.images, 0] for c in range(data.classes)])
        net = factory(rng)
        sent = torch.cat([self._each(x[own], name, rng) for name in names])
        truth, labels = x[own].repeat(len(names), 1, 1, 1), y[own].repeat(len(names))
        errors = attack_errors(net, truth, sent, labels, self.steps, rng)  # type: ignore[arg-type]
        per_class = torch.stack([errors.view(len(names), -1)[:, y[own] == c].mean(dim=1) for c in range(data.classes)])
        seed = int(torch.randint(2**31, (1,), generator=rng))
        rates = []
        for name in ("identity", *names):
            same = torch.Generator().manual_seed(seed)  # every operation starts from one network and one order
            trained = fit(factory(same), data.private.images(), data.private.labels(), self.fit, same,  # type: ignore[arg-type]
                          lambda a, b, name=name: self._each(a, name, rng))  # type: ignore[misc]  # fmt: skip
            rates.append(accuracy(trained, x, y))
        return per_class, torch.tensor(rates)

    def _each(self, x: Tensor, name: str, rng: torch.Generator) -> Tensor:
        """One operation on every image, in random directions."""
        import torch

        from inversionbench.models.operations import apply, signed

        one = apply(x, name, amount(name, self.strength))
        if not signed(name):
            return one
        up = torch.randint(2, (len(x),), generator=rng).bool().view(-1, 1, 1, 1)
        return torch.where(up, one, apply(x, name, amount(name, -self.strength)))

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        import torch

        if self.strength == 0:
            return x, y
        if not self.policy:
            raise ValueError("image_augmentation: no policy yet: call prepare() first, or give one")
        names = self.policy.split(",")
        return torch.cat([self._each(one[None], names[int(label) % len(names)], rng) for one, label in zip(x, y)]), y

    def public_knowledge(self) -> dict[str, Any]:
        """Operation of each class and magnitude; the directions stay with the client."""
        amounts = {name: amount(name, self.strength) for name in set(self.policy.split(",")) if name}
        return {"policy": self.policy, "magnitude": self.strength, "amounts": dict(sorted(amounts.items()))}


def amount(name: str, magnitude: float) -> float:
    """What `_operations.apply` takes for a magnitude of -10 to 10; the sign is the direction.

    >>> amount("rotate", -5), amount("brightness", 10), amount("solarize", 3), amount("posterize", 10)
    (-15.0, 1.9, 0.7, 4.0)
    """
    share = magnitude / 10
    if name in ("color", "contrast", "brightness", "sharpness"):
        return 1 + 0.9 * share
    if name == "solarize":
        return 1 - abs(share)
    if name == "posterize":
        return 8 - 4 * abs(share)
    greatest = {"rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.33, "translate_y": 0.33}
    return share * greatest.get(name, 0.0)
