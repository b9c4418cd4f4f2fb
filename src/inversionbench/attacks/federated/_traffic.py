"""What somebody on the wire between clients and server can read: less than the server.

The oracle is built for the server. `Traffic` passes on the uploads, and the weights only of rounds whose
download is intercepted; everything else raises `AccessDenied`, so an attack written against it cannot use more.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

import torch
from torch import Tensor, nn

from inversionbench.models.federated import Victim
from inversionbench.oracle.base import AccessDenied, Oracle
from inversionbench.training._protocol import Protocol

ROUTES = ("analytic", "downloads", "uploads")


class Traffic:
    """uploads: every round's. downloads: the rounds (0: the attacked one, k: k before) whose weights are read."""

    def __init__(self, oracle: Oracle, downloads: Collection[int] = ()):
        self.__oracle, self.__downloads = oracle, frozenset(downloads)

    def protocol(self) -> Protocol:
        """The public constants of the federation."""
        given = self.__oracle.protocol()
        return Protocol(**{f.name: given[f.name] for f in fields(Protocol)})

    def update(self, back: int = 0) -> dict[str, Tensor]:
        """Uploads of the attacked clients, `back` rounds before the attacked one."""
        return self.__oracle.observe_update(back=back) if back else self.__oracle.observe_update()

    def weights(self, back: int = 0) -> Victim:
        """The model of an intercepted download."""
        if back not in self.__downloads:
            raise AccessDenied(f"the download {back} rounds before the attack was not intercepted")
        return self.__oracle.global_model(back) if back else self.__oracle.global_model()

    def architecture(self, rng: torch.Generator) -> Victim:
        """The network with weights of the attacker's own drawing; nothing of the server's weights stays."""
        return redraw(self.__oracle.global_model(), rng)


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


def integrate(model: Victim, traffic: Traffic, clients: Tensor, factor: float) -> Victim:
    """Weights of the attacked round from those of the first one, by following what `clients` (n,) sent.

    theta <- theta - rate * sum of the gradients seen / number of all clients (for differences of weights with
    the other sign), rate the server's times `factor`. In place. Clients that are not seen count as zero: nearer
    than the mean of those seen, because updates of different clients point in different directions.
    """
    protocol = traffic.protocol()
    sign = 1 if protocol.sends == "delta" else -1
    named = dict(model.named_parameters())
    with torch.no_grad():
        for back in range(protocol.rounds - 1, 0, -1):
            for name, sent in traffic.update(back).items():
                named[name].add_(sent[clients].sum(0) / len(sent), alpha=sign * factor * protocol.server_rate)
    return model
