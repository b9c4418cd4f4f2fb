"""Explanations of a classifier's answer: which parts of an image speak for a class, as a service publishes them.

gradient           dz_c/dx
gradient_x_input   x * dz_c/dx
gradcam            relu(sum_k a_k A^k), a_k the mean over places of dz_c/dA^k, A the last block's maps, enlarged to the
                   size of x (Selvaraju et al., ICCV 2017)
lrp                layer-wise relevance propagation (Bach et al., 2015): the z+ rule in hidden layers, the rule for
                   bounded pixels in the first (Montavon et al., 2017); biases and normalisations take no relevance

z_c: logit of class c. `lrp` wants the layers in a row, as `classifiers.Staged` has them; inside a block that is no
plain sequence relevance follows the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from inversionbench.models.base import trace
from inversionbench.models.classifiers import Normalise

KINDS = ("gradient", "gradient_x_input", "gradcam", "lrp")
EPS = 1e-9
WEIGHTED = (nn.Conv2d, nn.Linear)
HANDS_ON = (nn.modules.batchnorm._BatchNorm, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Identity, nn.Flatten, Normalise)
Explained = Callable[[nn.Module, Tensor, Tensor], Tensor]


def explain(net: nn.Module, x: Tensor, kind: str, classes: Tensor) -> Tensor:
    """Maps (n, k, channels, h, w) of images x (n, c, h, w) for classes int64 (n, k); channels: 1 for gradcam, else c.

    Each map is divided by its largest absolute value; signs are kept. Detached: nothing leads back to the network.
    """
    with torch.enable_grad():
        maps = torch.stack([MAPS[kind](net, x.detach(), c) for c in classes.T], 1).detach()
    return maps / maps.flatten(2).abs().amax(2).clamp_min(EPS)[..., None, None, None]


def gradient(net: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    """c: int64 (n,)."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x).gather(1, c[:, None]).sum(), x)[0]


def gradient_x_input(net: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    return x * gradient(net, x, c)


def gradcam(net: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    seen = trace(net, x.clone().requires_grad_())
    maps = [h for h in seen.hidden.values() if h.dim() == 4][-1]
    slope = torch.autograd.grad(seen.logits.gather(1, c[:, None]).sum(), maps)[0]
    cam = (slope.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    return F.interpolate(cam, x.shape[2:], mode="bilinear", align_corners=False)


def lrp(net: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    layers = list(_in_a_row(net))
    first = next(i for i, layer in enumerate(layers) if isinstance(layer, WEIGHTED))
    seen, low, high = [x], torch.zeros_like(x), torch.ones_like(x)
    with torch.no_grad():
        for i, layer in enumerate(layers):
            seen.append(layer(seen[-1]))
            low, high = (layer(low), layer(high)) if i < first else (low, high)
    z = seen[-1]
    r = torch.zeros_like(z).scatter(1, c[:, None], z.gather(1, c[:, None]))
    for i, (a, b) in reversed(list(enumerate(pairwise(seen)))):
        if i == first:
            r = _pixels(layers[i], a, low, high, r)
        elif isinstance(layers[i], WEIGHTED):
            weight: Tensor = layers[i].weight  # type: ignore[assignment]
            r = _share(partial(_weighted, layers[i], weight.clamp_min(0)), a.clamp_min(0), r)
        elif a.numel() == b.numel() and isinstance(layers[i], HANDS_ON):
            r = r.view_as(a)
        else:
            r = _share(layers[i], a, r)
    return r


def _in_a_row(net: nn.Module) -> Iterator[nn.Module]:
    for child in net.children():
        if isinstance(child, (nn.Sequential, nn.ModuleDict)):
            yield from _in_a_row(child)
        else:
            yield child


def _weighted(layer: nn.Module, weight: Tensor, a: Tensor) -> Tensor:
    """The layer with other weights and no bias."""
    bias = {} if layer.bias is None else {"bias": torch.zeros_like(layer.bias)}  # type: ignore[arg-type]
    return functional_call(layer, {"weight": weight, **bias}, a)


def _share(f: Callable[[Tensor], Tensor], a: Tensor, r: Tensor) -> Tensor:
    """Relevance r of f(a), dealt to a in the share that each has in it: a * d(f(a) s)/da with s = r / f(a)."""
    a = a.clone().requires_grad_()
    z = f(a)
    s = r / torch.where(z >= 0, z + EPS, z - EPS)
    return (a * torch.autograd.grad((z * s.detach()).sum(), a)[0]).detach()


def _pixels(layer: nn.Module, a: Tensor, low: Tensor, high: Tensor, r: Tensor) -> Tensor:
    """The same for inputs between low and high: z = W a - W+ low - W- high, no term of which is negative."""
    w: Tensor = layer.weight  # type: ignore[assignment]
    ends = tuple(t.clone().requires_grad_() for t in (a, low, high))
    parts = (_weighted(layer, weight, t) for weight, t in zip((w, w.clamp_min(0), w.clamp_max(0)), ends))
    z = next(parts) - sum(parts)
    slopes = torch.autograd.grad((z * (r / z.clamp_min(EPS)).detach()).sum(), ends)
    return torch.stack([t * slope for t, slope in zip(ends, slopes)]).sum(0).detach()


MAPS: dict[str, Explained] = {
    "gradient": gradient, "gradient_x_input": gradient_x_input, "gradcam": gradcam, "lrp": lrp,
}  # fmt: skip
