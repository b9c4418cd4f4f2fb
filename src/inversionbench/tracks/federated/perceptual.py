"""Perceptual distance by the evaluators of a scenario, where pretrained weights are not to be had.

`lpips_like[E]` (metrics/lpips.py): LPIPS with unit weights on the ReLU stages of the first network of the entry
E of `evaluators:`. It compares with rows that share E, never with published LPIPS. The second network, of another
architecture, measures the same images once more (`facts`): an order of attacks that only one of the two sees is
a property of that network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.errors import UserError
from inversionbench.metrics._pairwise import pairwise
from inversionbench.models.base import trace
from inversionbench.training.evaluators import Judges
from inversionbench.training.perceptual import check_stages

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset


class Maps:
    """The feature maps of one network. name: what `lpips_like[...]` carries; stages: names of its blocks."""

    def __init__(self, net: nn.Module, stages: tuple[str, ...], name: str):
        self.net, self.stages, self.name = net, stages, name
        self.where = next(net.parameters()).device

    @torch.no_grad()
    def __call__(self, x: Tensor) -> list[Tensor]:
        """Maps (n, c_l, h_l, w_l) of images x (n, c, h, w) in [0, 1]."""
        hidden = trace(self.net, x.to(self.where)).hidden
        return [hidden[stage] for stage in self.stages]


class Perception:
    """The two evaluators of entry `entry`, from the state that training left.

    Raises `UserError` where the state is that of other images, or of networks without ReLU stages.
    """

    def __init__(self, entry: str, state: Mapping[str, Any], data: Dataset):
        where = f"evaluators.{entry}"
        if "judges" not in state:
            raise UserError(f"{where}: holds no classifiers of images; name an entry with `track: federated`")
        if tuple(state["shape"]) != tuple(data.shape):
            got, wanted = tuple(state["shape"]), tuple(data.shape)
            raise UserError(f"{where}: trained on images {got}, but the scenario's are {wanted}; give it its dataset")
        judges = Judges(state)
        stages = [check_stages(name, where) for name in judges.names]
        self.accuracies = dict(zip(judges.names, judges.accuracies, strict=True))
        self.first, self.second = (
            Maps(net, of, name) for net, of, name in zip(judges.nets, stages, (entry, judges.names[1]), strict=True)
        )

    def facts(self, truth: Tensor, images: Tensor, groups: np.ndarray, seed: int) -> dict[str, Any]:
        """Held-out accuracy of both networks, and the mean distance that the second one sees."""
        again = pairwise(truth, images, ("lpips_like",), True, self.second, groups=groups, seed=seed)
        return {
            "evaluators": self.accuracies,
            "lpips_like_second": {name: float(np.nanmean(value)) for name, value in again.values.items()},
        }
