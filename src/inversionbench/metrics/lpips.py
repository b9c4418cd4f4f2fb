"""LPIPS, the learned perceptual image patch similarity (survey, section 5; Zhang et al., CVPR 2018).

d(x, y) = sum_l 1/(H_l W_l) sum_{h,w} sum_c v_lc (f^l_chw(x) - f^l_chw(y))^2 with f^l the features of layer l,
scaled to unit length over the channels of each position, and learned weights v_l >= 0. The survey's formula
leaves out the scaling and the weights; this is the paper's form, as its package `lpips` (version 0.1) computes
it. The backbone (alex for reports, vgg, squeeze) is trained on ImageNet: its weights are a declared input.

Images whose smaller side is below 64 pixels are resized, both, bilinearly to 64 x 64 (the backbones fail on
less than about 31); values at different sizes do not compare. Grey images are repeated to three channels.

`lpips_like` is the same formula with v = 1 on the feature maps of an evaluator trained in the pipeline. It is
reported as `lpips_like[E]` and compares only with rows that share E, never with published LPIPS.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.errors import UserError, suggest
from inversionbench.metrics._weights import sha256, verified
from inversionbench.metrics.base import Images, Scorer, Spec, Unavailable, check_pair

SIDE = 64
NETS = ("alex", "vgg", "squeeze")
SPEC = Spec(
    "lpips",
    "LPIPS",
    digits=3,
    direction="lower",
    range=(0.0, 1.5),
    kind="pair",
    needs="weights",
    weights=NETS,
    note="perceptual distance in the features of a pretrained AlexNet, whose weights the user provides",
)
FURTHER = (
    Spec(
        "lpips_like",
        "LPIPS-like",
        kind="pair",
        needs="features",
        digits=3,
        direction="lower",
        note="perceptual distance in the feature maps of the evaluator in brackets; comparable with itself only",
    ),
)


def lpips(
    truth: Images, reconstruction: Images, net: str = "alex", weights: str | Path | None = None
) -> Tensor | Unavailable:
    """LPIPS per image.

    truth, reconstruction: float (n, channels, height, width) in [0, 1], 1 or 3 channels. net: "alex", "vgg" or
    "squeeze". weights: folder of the backbone's file (default: torch's own). Returns float64 (n,), 0 for
    identical images, about 1 for unrelated ones; lower means more leakage. `Unavailable` if the file is
    missing or is not the declared one. Raises `UserError` for other shapes, types, values or nets.
    """
    t, r = check_pair(truth, reconstruction, SPEC)
    network = load(net, weights)
    return network if isinstance(network, Unavailable) else distance(t, r, network)


def lpips_like(truth: Images, reconstruction: Images, features: Callable[[Tensor], Sequence[Tensor]]) -> Tensor:
    """The formula of LPIPS with v = 1 on the feature maps of an evaluator, per image.

    truth, reconstruction: float (n, channels, height, width) in [0, 1]. features: float32 images -> feature
    maps (n, c_l, h_l, w_l), three to five ReLU stages. Returns float64 (n,) in [0, 4 x number of maps]; lower
    means more leakage. Raises `UserError` for other shapes, types or values.

    >>> maps = {0.0: (3.0, 4.0), 1.0: (4.0, 3.0)}
    >>> def features(x):
    ...     return [torch.stack([torch.tensor(maps[float(i.max())]) for i in x])[:, :, None, None]]
    >>> round(float(lpips_like(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), features)), 6)
    0.08
    """
    t, r = check_pair(truth, reconstruction, SPEC)
    with torch.no_grad():
        maps_t, maps_r = features(t.float()), features(r.float())
    total = torch.zeros(len(t), dtype=torch.float64, device=t.device)
    for a, b in zip(_maps(maps_t, len(t)), _maps(maps_r, len(t))):
        total += (_unit(a) - _unit(b)).square().sum(dim=1).mean(dim=(1, 2)).to(t.device)
    return total


def distance(t: Tensor, r: Tensor, network: torch.nn.Module) -> Tensor:
    """LPIPS of checked images by a loaded network: float64 (n,)."""
    if t.shape[1] not in (1, 3):
        raise UserError(f"lpips: expected 1 or 3 channels, got {t.shape[1]}")
    network.to(t.device)
    with torch.no_grad():
        return network(_prepare(t), _prepare(r), normalize=True).flatten().double()


def working_size(t: Tensor) -> int:
    """The smaller side at which LPIPS looks at these images."""
    return max(SIDE, min(t.shape[-2:]))


@cache
def _network(net: str, path: str, digest: str) -> torch.nn.Module:
    """The package's metric: built with a random backbone, which touches no network, then filled from a file."""
    from lpips import LPIPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision in an older way
        network = LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
    state = torch.load(path, map_location="cpu", weights_only=True)
    # the package cuts `features` into slices but keeps the layers' numbers: slice2.3.weight is features.3.weight
    own = network.net.state_dict()
    network.net.load_state_dict({key: state["features." + key.split(".", 1)[1]] for key in own})
    network.weights_sha256 = digest
    return network.eval().requires_grad_(False)


def load(net: str = "alex", weights: str | Path | None = None) -> torch.nn.Module | Unavailable:
    """The metric with a verified backbone, loaded once per process; `Unavailable` with the reason if none."""
    if net not in NETS:
        raise UserError(f"lpips: unknown net '{net}': {suggest(net, NETS)}")
    path = verified(net, weights)
    if isinstance(path, Unavailable):
        return Unavailable(f"lpips ({net}): {path.reason}")
    return _network(net, str(path), sha256(path))


def _prepare(x: Tensor) -> Tensor:
    x = x.float()
    if min(x.shape[-2:]) < SIDE:
        x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return x.expand(-1, 3, -1, -1)


def _maps(maps: Any, n: int) -> list[Tensor]:
    if isinstance(maps, Tensor) or not len(maps) or any(m.ndim != 4 or len(m) != n for m in maps):
        shapes = tuple(maps.shape) if isinstance(maps, Tensor) else [tuple(m.shape) for m in maps]
        raise UserError(f"lpips_like: features must return a list of maps ({n}, c, h, w), got {shapes}")
    for m in maps:
        if not torch.isfinite(m).all():
            raise UserError("lpips_like: a feature map holds NaN or infinite values")
    return [m.double() for m in maps]


def _unit(features: Tensor) -> Tensor:
    """Unit length over channels at each position."""
    return features / (features.norm(dim=1, keepdim=True) + 1e-10)


def _scorer(t: Tensor, context: Mapping[str, Any], notes: dict[str, Any]) -> Scorer | Unavailable:
    network = load(context["net"], context["weights"])
    if isinstance(network, Unavailable):
        return network
    notes |= {"lpips_net": context["net"], "lpips_size": working_size(t)}
    notes["lpips_weights_sha256"] = network.weights_sha256
    return lambda x, y, block: {"lpips": distance(x, y, network)}


def _scorer_on_features(t: Tensor, context: Mapping[str, Any], notes: dict[str, Any]) -> Scorer | Unavailable:
    features = context["features"]
    if features is None:
        return Unavailable("lpips_like needs the feature maps of an evaluator")
    name = f"lpips_like[{getattr(features, 'name', 'features')}]"
    return lambda x, y, block: {name: lpips_like(x, y, features)}


SCORERS = {"lpips": _scorer, "lpips_like": _scorer_on_features}
