"""Weights that nobody sent to the attacker: drawn by itself, or moved along by the uploads that it read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inversionbench.gradients.problem import protocol_of
from inversionbench.models.federated import Victim
from inversionbench.oracle.base import Oracle


def redraw(model: Victim, rng: torch.Generator) -> Victim:
    """Every parameter and buffer of `model` anew, in place: U(-1/sqrt(fan in), 1/sqrt(fan in)) for linear layers
    and convolutions, identity for normalisations, N(0, 0.02^2) for the rest.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=rng))
        for module in model.modules():
            own = dict(module.named_parameters(recurse=False))
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                bound = module.weight[0].numel() ** -0.5
                for parameter in own.values():
                    parameter.copy_(bound * (2 * torch.rand(parameter.shape, generator=rng) - 1))
            elif set(own) == {"weight", "bias"}:
                own["weight"].fill_(1.0)
                own["bias"].zero_()
            for name, buffer in module.named_buffers(recurse=False):
                buffer.fill_(1.0 if name == "running_var" else 0.0)
    return model


def integrate(model: Victim, oracle: Oracle, clients: Tensor, factor: float) -> Victim:
    """Weights of the attacked round from those of the first one, by following what `clients` (n,) sent.

    theta <- theta - rate * sum of the gradients seen / number of all clients (for differences of weights with
    the other sign), rate the server's times `factor`. In place. Clients that are not seen count as zero: nearer
    than the mean of those seen, because updates of different clients point in different directions.
    """
    protocol = protocol_of(oracle)
    sign = 1 if protocol.sends == "delta" else -1
    named = dict(model.named_parameters())
    with torch.no_grad():
        for back in range(protocol.rounds - 1, 0, -1):
            for name, sent in oracle.observe_update(back=back).items():
                named[name].add_(sent[clients].sum(0) / len(sent), alpha=sign * factor * protocol.server_rate)
    return model
