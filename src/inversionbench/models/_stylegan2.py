"""Weights of the official StyleGAN2-ADA networks in this package's style-based generator.

The official files are pickles that carry the source text of their classes and run it when opened. Nothing of
that happens here: the pickle is read by a reader that knows tensors, numbers and containers; every other name
in it, callables included, becomes an inert record. What remains are the weights by name.

Same layout, so weights move by name. Three differences: the filters of upsampling convolutions are stored
mirrored (theirs convolve, ours correlate); the fixed noise maps lose no axis here; upsampling repeats the edges
instead of padding zeros, so that images differ within a few pixels of the border and nowhere else. Class
labels (c_dim > 0) and other generators (StyleGAN3) are refused. A discriminator is not converted: the attacks
use it with weight 0 as published.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.models.style import StyleGenerator


class Inert(dict):
    """Stands for an object of a class that is not loaded: keeps what it was made from, does nothing."""

    def __init__(self, *made_from: Any, **_: Any):
        super().__init__()
        self.made_from = made_from
        self.fields: Any = None

    def __setstate__(self, state: Any) -> None:
        self.fields = state


def _storage(raw: bytes) -> Any:
    return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)


def _bare(data: Tensor, *_: Any) -> Tensor:
    return data


_scalar = np.float64(0).__reduce__()[0]  # numpy's own way to make a number
KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _bare,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return KNOWN.get((module, name), Inert)


def read(path: Path | str, network: str = "G_ema") -> dict[str, Tensor]:
    """Weights by official name of one network of an official file; `UserError` if the file is something else."""
    try:
        with Path(path).open("rb") as handle:
            found = _Reader(handle).load()
        out: dict[str, Tensor] = {}
        _collect(found[network], "", out)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged or different pickle raises nearly anything
        raise UserError(f"{path}: no network '{network}' of StyleGAN2-ADA could be read "
                        f"({type(error).__name__}: {error})") from error  # fmt: skip
    if not out:
        raise UserError(f"{path}: network '{network}' holds no weights; expected an official StyleGAN2-ADA pickle")
    return out


def _collect(network: Inert, prefix: str, out: dict[str, Tensor]) -> None:
    state = network.made_from[0]["state"]
    for kind in ("_parameters", "_buffers"):
        out.update({prefix + name: value for name, value in state[kind].items() if value is not None})
    for name, child in state["_modules"].items():
        _collect(child, f"{prefix}{name}.", out)


def generator(weights: Mapping[str, Tensor]) -> StyleGenerator:
    """The generator with these official weights; sizes are read from them."""
    if any(name.startswith("mapping.embed") for name in weights):
        raise UserError("the official network takes class labels (mapping.embed); expected one without")
    sides = sorted(int(name.split(".")[1][1:]) for name in weights if name.endswith(".conv1.weight"))
    if not sides or sides != [4 << i for i in range(len(sides))]:
        raise UserError(f"expected blocks b4, b8, ... with conv1, got resolutions {sides}: not a StyleGAN2 generator")
    depth = len([name for name in weights if name.startswith("mapping.fc") and name.endswith("weight")])
    w_dim = len(weights["mapping.w_avg"])
    if any(weights[f"mapping.fc{i}.weight"].shape[0] != w_dim for i in range(depth)):
        raise UserError(f"the layers of the mapping differ in width from w ({w_dim}); such a network is not supported")
    with torch.random.fork_rng(devices=[]):
        net = StyleGenerator(
            weights["mapping.fc0.weight"].shape[1], w_dim,
            [len(weights[f"synthesis.b{side}.conv1.bias"]) for side in sides],
            len(weights["synthesis.b4.torgb.bias"]), sides[-1], depth,
        )  # fmt: skip
    state = {ours: _moved(weights[theirs], theirs) for ours, theirs in names(depth, len(sides)).items()}
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def names(depth: int, blocks: int) -> dict[str, str]:
    """Our name -> official name of every weight of a generator."""
    out = {"w_mean": "mapping.w_avg", "blocks.0.start": "synthesis.b4.const"}
    for i in range(depth):
        out |= {f"map.{i}.{part}": f"mapping.fc{i}.{part}" for part in ("weight", "bias")}
    noise = 0
    for b in range(blocks):
        theirs = f"synthesis.b{4 << b}"
        convolutions = ["conv1"] if b == 0 else ["conv0", "conv1"]
        for i, conv in enumerate(convolutions):
            ours = f"blocks.{b}.layers.{i}"
            out |= {
                f"{ours}.conv.conv.weight": f"{theirs}.{conv}.weight", f"{ours}.bias": f"{theirs}.{conv}.bias",
                f"{ours}.strength": f"{theirs}.{conv}.noise_strength",
                f"noise{noise}": f"{theirs}.{conv}.noise_const",
                **{f"{ours}.conv.affine.{p}": f"{theirs}.{conv}.affine.{p}" for p in ("weight", "bias")},
            }  # fmt: skip
            noise += 1
        out |= {
            f"blocks.{b}.colour.conv.weight": f"{theirs}.torgb.weight", f"blocks.{b}.bias": f"{theirs}.torgb.bias",
            **{f"blocks.{b}.colour.affine.{p}": f"{theirs}.torgb.affine.{p}" for p in ("weight", "bias")},
        }  # fmt: skip
    return out


def _moved(value: Tensor, theirs: str) -> Tensor:
    """An official weight in our convention."""
    if theirs.endswith("conv0.weight"):
        return value.flip(2, 3)
    return value[None, None] if theirs.endswith("noise_const") else value
