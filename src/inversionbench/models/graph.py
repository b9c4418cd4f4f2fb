"""Graph convolutional networks that classify the nodes of one graph (Kipf and Welling, ICLR 2017).

    logits = N(A) relu(N(A) X W1 + b1) W2 + b2,    N(A) = D^-1/2 (A + I) D^-1/2,  D the degrees of A + I

A network holds the features X of its nodes and never the graph: the graph is its input, so that it can be asked
about any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.defense import NONE, Defense
from inversionbench.models.base import Trace


def normalised(adjacency: Tensor) -> Tensor:
    """D^-1/2 (A + I) D^-1/2. adjacency: (..., n, n), symmetric, in [0, 1]."""
    looped = adjacency + torch.eye(adjacency.shape[-1])
    scale = looped.sum(-1).rsqrt()
    return scale[..., :, None] * looped * scale[..., None, :]


class GCN(nn.Module):
    """x: the features of the nodes, float (n, d). Adjacency (graphs, n, n) -> logits (graphs, n, classes)."""

    x: Tensor

    def __init__(self, x: Tensor, hidden: int, dropout: float, classes: int):
        super().__init__()
        self.register_buffer("x", x, persistent=False)
        self.dropout = dropout
        self.layer = nn.Linear(x.shape[1], hidden, bias=False)
        self.fc = nn.Linear(hidden, classes, bias=False)
        self.layer_bias, self.fc_bias = nn.Parameter(torch.zeros(hidden)), nn.Parameter(torch.zeros(classes))
        for linear in (self.layer, self.fc):
            nn.init.xavier_uniform_(linear.weight)

    def trace(self, adjacency: Tensor) -> Trace:
        """features: what the last layer reads of every node, (graphs, n, hidden), after its ReLU."""
        spread = normalised(adjacency)
        h = (spread @ self.layer(self.x) + self.layer_bias).relu()
        dropped = F.dropout(h, self.dropout, self.training)
        return Trace(spread @ self.fc(dropped) + self.fc_bias, h, {"layer": h})

    def forward(self, adjacency: Tensor) -> Tensor:
        return self.trace(adjacency).logits


class OnGraph(nn.Module):
    """A network on one fixed graph, as a classifier of node numbers: int64 (batch,) -> logits (batch, classes)."""

    adjacency: Tensor
    network: Any

    def __init__(self, network: nn.Module, adjacency: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("adjacency", adjacency[None], persistent=False)

    def trace(self, nodes: Tensor) -> Trace:
        seen = self.network.trace(self.adjacency)
        hidden = {name: h[0, nodes] for name, h in seen.hidden.items()}
        return Trace(seen.logits[0, nodes], seen.features[0, nodes], hidden)

    def forward(self, nodes: Tensor) -> Tensor:
        return self.trace(nodes).logits


def load(
    weights: Mapping[str, Tensor], x: Tensor, options: Mapping[str, Any], classes: int, defense: Defense = NONE
) -> nn.Module:
    """A trained network in evaluation mode. defense: the one it was trained with (its H3)."""
    network = defense.build_model(lambda: GCN(x, options["hidden"], options["dropout"], classes))
    network.load_state_dict(weights)
    return network.eval()
