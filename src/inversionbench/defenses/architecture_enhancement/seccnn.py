"""SecCNN (survey 4.6; Liu, Shen, Chen, Chen, PAKDD 2024): reconstruction.

An upsampling layer in front of a convolution, whose stride grows by the same factor: maps, parameters and
multiplications stay as they were. Several kernel taps then read the same pixel, so the weight gradient has fewer
independent equations for the input, and a recursive attacker (R-GAP) who knows everything behind the layer can no
longer solve for it. Where that happens is computed, not assumed: `_rank.deficit` counts the free directions of the
input, and `design` compares placements.

The paper's placement and factor could not be read. Here: factor = strength (0: off; 2, 3), in front of convolution
number `position` (0: the first), nearest neighbour. A convolution with many more output values than input values
leaves no deficit whatever comes before it; `design` says so.

Nothing is random and nothing is hidden: a search with an image prior fills a small null space and is not stopped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from inversionbench.models.federated import Victim

MODES = ("nearest", "bilinear")


@dataclass(frozen=True)
class Seccnn(Defense):
    """position: which convolution of the network's body. mode: nearest or bilinear."""

    id = "seccnn"
    hooks = frozenset({"build_model"})
    federated = True
    inputs = ("image",)
    layered = True

    position: Whole = 0
    mode: str = "nearest"

    def __post_init__(self) -> None:
        if self.strength not in (0, 1, 2, 3, 4) or self.position < 0 or self.mode not in MODES:
            raise ValueError(
                f"seccnn: strength is a factor of 0 (off), 2, 3 or 4, position at least 0, mode {' or '.join(MODES)}, "
                f"got {self.strength}, {self.position}, '{self.mode}'"
            )

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model = factory()
        if self.strength in (0, 1):
            return model
        from torch import nn

        from inversionbench.models.federated import Victim

        assert isinstance(model, Victim)
        children = list(model.body.named_children())
        places = [i for i, (_, m) in enumerate(children) if isinstance(m, nn.Conv2d)]
        if self.position >= len(places):
            raise UserError(f"seccnn: position {self.position} of {len(places)} convolutions in the network's body; "
                            "use a network that has one there (lenet, convnet)")  # fmt: skip
        i, factor = places[self.position], int(self.strength)
        name, conv = children[i]
        children[i : i + 1] = [("upsample", upsample(factor, self.mode)), (name, strided(conv, factor))]
        return Victim(nn.Sequential(OrderedDict(children)), model.shape, model.classes).eval()

    def public_knowledge(self) -> dict[str, Any]:
        return {"upsampling": int(self.strength), "position": self.position, "mode": self.mode}


def upsample(factor: int, mode: str) -> nn.Module:
    from torch import nn

    return nn.Upsample(scale_factor=factor, mode=mode)


def strided(conv: nn.Module, factor: int) -> nn.Module:
    """The same convolution, the same parameters, with `factor` times the stride."""
    from torch import nn

    assert isinstance(conv, nn.Conv2d)
    twin = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, tuple(factor * s for s in conv.stride),  # type: ignore[arg-type]
        conv.padding, bias=conv.bias is not None,  # type: ignore[arg-type]
    )  # fmt: skip
    twin.weight, twin.bias = conv.weight, conv.bias
    return twin


def design(
    model: Victim, x: torch.Tensor, y: torch.Tensor, factors: tuple[int, ...] = (2, 3), modes: tuple[str, ...] = MODES
) -> list[dict[str, Any]]:
    """Every placement with the deficit of its convolution, in the order of the network, cheapest first.

    x: (1, c, h, w) in [0, 1] and y: (1,), the point at which the gradient is taken. Rows: position, factor (1: as it
    is), mode, unknowns, deficit. The first row with a factor above 1 and a deficit above 0 is the one to take.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    from inversionbench.defenses.architecture_enhancement._rank import Layer, deficit

    rows: list[dict[str, Any]] = []
    convs = [m for m in model.body.children() if isinstance(m, nn.Conv2d)]
    for position in range(len(convs)):
        for factor, mode in [(1, "nearest"), *((f, m) for f in factors for m in modes)]:
            built: Any = Seccnn(float(factor), position, mode).build_model(lambda: model)
            conv = [m for m in built.body.children() if isinstance(m, nn.Conv2d)][position]
            seen: dict[str, torch.Tensor] = {}
            hook = conv.register_forward_hook(lambda m, i, o, seen=seen: seen.update(i=i[0], o=o))
            with torch.enable_grad():
                loss = F.cross_entropy(built(x), y)
            hook.remove()
            (d,) = torch.autograd.grad(loss, seen["o"])
            c, h, w = seen["i"].shape[1:]
            shape = (c, h // factor, w // factor)
            free = deficit(Layer(conv, factor, mode), shape, d[0].detach())
            rows.append({"position": position, "factor": factor, "mode": mode,
                         "unknowns": c * shape[1] * shape[2], "deficit": free})  # fmt: skip
    return rows
