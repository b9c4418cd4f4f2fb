"""Removing channels from the client half of a network: factors that learn which, and the smaller network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inversionbench.core.errors import UserError
from inversionbench.models.split import Halves

FEWEST = 2  # channels of a layer that stay


class Mask(nn.Module):
    """One trainable factor for each channel of the convolution before it."""

    def __init__(self, channels: int):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(channels))

    def forward(self, z: Tensor) -> Tensor:
        return z * self.factor.view(1, -1, 1, 1)

    @torch.no_grad()
    def shrink(self, amount: float) -> None:
        """Soft thresholding: the proximal step of `amount` times the sum of absolute factors."""
        self.factor.copy_(self.factor.sign() * (self.factor.abs() - amount).clamp_min(0))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def deepened(net: Halves) -> Halves:
    """The cut one stage later: after the server's first pooling."""
    layers = list(net.server)
    ends = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    if not ends:
        raise UserError("patrol: no stage behind the cut to move to the client; use a shallower cut, or deeper: false")
    return Halves(nn.Sequential(*net.client, *layers[: ends[0]]), nn.Sequential(*layers[ends[0] :]), net.release)


def masked(net: Halves) -> Halves:
    """A factor behind every convolution of the client."""
    layers: list[nn.Module] = []
    for layer in net.client:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(Mask(layer.out_channels))
    return Halves(nn.Sequential(*layers), net.server, net.release)


def pruned(net: Halves, budget: float) -> tuple[Halves, list[Tensor]]:
    """Without the channels of the smallest factors, so many that the client has at most `budget` parameters; the
    factors of the others are in the weights. Also which channels of each convolution stayed."""
    masks = [m for m in net.client if isinstance(m, Mask)]
    layers = [copy.deepcopy(m) for m in net.client if not isinstance(m, Mask)]
    convs = [m for m in layers if isinstance(m, nn.Conv2d)]
    for conv, mask in zip(convs, masks, strict=True):
        conv.weight.data.mul_(mask.factor.detach().view(-1, 1, 1, 1))
        if conv.bias is not None:
            conv.bias.data.mul_(mask.factor.detach())
    whole = Halves(nn.Sequential(*layers), net.server, net.release)
    order = sorted((float(f.abs()), i, c) for i, mask in enumerate(masks) for c, f in enumerate(mask.factor.detach()))
    keep = [list(range(len(mask.factor))) for mask in masks]
    for _, layer, channel in order:
        if _size(convs, [len(k) for k in keep]) <= budget:
            break
        if len(keep[layer]) > FEWEST:
            keep[layer].remove(channel)
    if (size := _size(convs, [len(k) for k in keep])) > budget:
        raise UserError(f"patrol: a client of {FEWEST} channels in each layer has {size} parameters, more than the "
                        f"budget of {int(budget)}; set a larger share")  # fmt: skip
    chosen = [torch.tensor(k) for k in keep]
    return kept(whole, chosen), chosen


def _size(convs: Sequence[nn.Conv2d], widths: Sequence[int]) -> int:
    """Parameters of the convolutions, were they of these widths."""
    before = [convs[0].in_channels, *widths]
    return sum(w * (b * conv.weight[0, 0].numel() + (conv.bias is not None))
               for conv, b, w in zip(convs, before, widths))  # fmt: skip


def kept(net: Halves, keep: Sequence[Tensor]) -> Halves:
    """A new network of the channels `keep` of each convolution of the client, with their weights. What reads the last
    of them in the server reads those alone."""
    client, server = list(net.client), list(net.server)
    convs = [(i, m) for i, m in enumerate(client) if isinstance(m, nn.Conv2d)]
    before, whole = torch.arange(convs[0][1].in_channels), convs[-1][1].out_channels
    for (i, conv), rows in zip(convs, keep, strict=True):
        client[i] = _smaller(conv, rows, before)
        before = rows
    first = next(i for i, m in enumerate(server) if isinstance(m, (nn.Conv2d, nn.Linear)))
    server[first] = _smaller(server[first], None, before, whole)
    return Halves(nn.Sequential(*client), nn.Sequential(*server), net.release)


def _smaller(layer: nn.Module, rows: Tensor | None, columns: Tensor, channels: int = 0) -> nn.Module:
    """Of a layer the outputs `rows` (None: all), read from the input channels `columns`. channels: that a linear layer
    reads, each of as many values in a row."""
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    if isinstance(layer, nn.Linear):
        weight = layer.weight.detach().unflatten(1, (channels, -1))[:, columns].flatten(1)
    else:
        weight = layer.weight.detach()[:, columns]
    weight = weight if rows is None else weight[rows]
    small: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Linear):
        small = nn.Linear(weight.shape[1], weight.shape[0], layer.bias is not None)
    else:
        small = nn.Conv2d(weight.shape[1], weight.shape[0], layer.kernel_size, layer.stride,  # type: ignore[arg-type]
                          layer.padding, bias=layer.bias is not None)  # type: ignore[arg-type]  # fmt: skip
    small.weight.data.copy_(weight)
    if layer.bias is not None:
        small.bias.data.copy_(layer.bias.detach() if rows is None else layer.bias.detach()[rows])  # type: ignore[union-attr]
    return small.to(layer.weight.device)
