"""The batch-norm prior: images whose statistics inside the network are those of the client, or of its server."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from inversionbench.core.errors import AccessDenied
from inversionbench.gradients.problem import Problem
from inversionbench.models.federated import BatchNorm, Victim

Moments = list[tuple[Tensor, Tensor]]  # per batch norm (mean, biased variance), each (trials, channels)


def granted(problem: Problem) -> Moments:
    """The statistics that the attacker holds, per client: shared by the client, or the server's running ones.

    Raises `AccessDenied` where the network has no batch norm, or the clients normalise with statistics that
    they keep to themselves.
    """
    norms = problem.model.batch_norms()
    if not norms:
        raise AccessDenied("a batch-norm prior needs batch norms and this network has none: set bn: 0 to leave it out")
    if problem.protocol.bn == "train_private":
        raise AccessDenied("protocol.bn is train_private: no statistics are shared; set bn: 0 to leave the prior out")
    if problem.statistics is not None:
        return problem.statistics
    n = problem.clients
    return [(m.running_mean.expand(n, -1), m.running_var.expand(n, -1)) for m in norms]


class Statistics:
    """x (trials, batch, c, h, w), normalised -> the moments of every batch norm's input, per trial."""

    def __init__(self, model: Victim):
        self.body = copy.deepcopy(model.body)
        self.norms = [m for m in self.body.modules() if isinstance(m, BatchNorm)]
        for norm in self.norms:
            norm.record = True
        self.state = {**dict(self.body.named_parameters()), **dict(self.body.named_buffers())}

    def __call__(self, x: Tensor) -> Moments:
        def moments(images: Tensor) -> Moments:
            functional_call(self.body, self.state, (images,))
            seen = [norm.seen for norm in self.norms]
            for norm in self.norms:
                norm.seen = None
            return seen  # type: ignore[return-value]

        return vmap(moments)(x)


def distance(own: Moments, target: Moments, weights: Sequence[float]) -> Tensor:
    """sum_l w_l (||mean_l - target mean_l||_2 + ||variance_l - target variance_l||_2): (trials,).

    weights: of the first batch norms; those that follow have weight 1.
    """
    total: Tensor | float = 0.0
    for i, ((m, v), (tm, tv)) in enumerate(zip(own, target)):
        w = weights[i] if i < len(weights) else 1.0
        total = total + w * ((m - tm).norm(dim=1) + (v - tv).norm(dim=1))
    return torch.as_tensor(total)


class Prior:
    """x -> the distance of its statistics from those granted, `restarts` times per client."""

    def __init__(self, problem: Problem, restarts: int, weights: Sequence[float]):
        self.target = [(m.repeat(restarts, 1), v.repeat(restarts, 1)) for m, v in granted(problem)]
        self.statistics, self.weights = Statistics(problem.model), weights

    def __call__(self, x: Tensor) -> Tensor:
        return distance(self.statistics(x), self.target, self.weights)
