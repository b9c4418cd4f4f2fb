"""Official StyleGAN2-ADA weights: read without running anything, and at work in our generator.

The official files cannot be shipped; their layout is rebuilt here, the pickle included.
"""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from inversionbench.core.errors import UserError
from inversionbench.models._stylegan2 import generator, names, read
from inversionbench.models.style import StyleGenerator

CHANNELS, DEPTH, DIM = (6, 5, 4), 3, 7


@pytest.fixture(scope="module")
def official():
    """Random weights under the official names and shapes, 16 pixels."""
    torch.manual_seed(0)
    ours = StyleGenerator(DIM, DIM, CHANNELS, 3, 16, DEPTH)
    state = ours.state_dict()
    out = {}
    for name, theirs in names(DEPTH, 3).items():
        shape = state[name].shape[2:] if theirs.endswith("noise_const") else state[name].shape
        out[theirs] = torch.randn(shape)
    assert set(names(DEPTH, 3)) == set(state)  # nothing of ours is left as it was
    return out


class _Official:
    """Pickles as the official classes do: a call that would run source text."""

    def __init__(self, parameters, modules):
        self.state = {
            "_parameters": OrderedDict(parameters), "_buffers": OrderedDict(), "_modules": OrderedDict(modules),
            "weight_gain": np.float64(0.25), "training": False,
        }  # fmt: skip

    def __reduce__(self):
        persistence = sys.modules["torch_utils.persistence"]
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": "G", "state": self.state}
        return persistence._reconstruct_persistent_obj, (meta,)


def tree(weights):
    """Nested modules of weights by dotted name."""
    own = {name: torch.nn.Parameter(w) for name, w in weights.items() if "." not in name}
    children: dict = {}
    for name, w in weights.items():
        if "." in name:
            first, rest = name.split(".", 1)
            children.setdefault(first, {})[rest] = w
    return _Official(own, {name: tree(part) for name, part in children.items()})


@pytest.fixture
def persistence(monkeypatch):
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the official code was called")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


def test_a_pickle_is_read_and_nothing_is_run(official, persistence, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G_ema": tree(official), "training_set_kwargs": Trap()}))
    found = read(path)
    assert not (tmp_path / "sprung").exists()
    assert set(found) == set(official)
    assert all(torch.equal(found[name], official[name]) for name in official)


def test_other_files_are_refused(persistence, tmp_path):
    path = tmp_path / "other.pkl"
    for content in ({"G": 1}, {"G_ema": 3}, {"G_ema": tree({})}, [1, 2]):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=r"other\.pkl"):
            read(path)
    path.write_bytes(b"no pickle")
    with pytest.raises(UserError, match=r"other\.pkl"):
        read(path)
    with pytest.raises(UserError, match=r"absent\.pkl"):
        read(tmp_path / "absent.pkl")


def test_layers_compute_what_the_published_ones_do(official):
    """An upsampling and a plain layer, written out with zero insertion, true convolution, filter and noise."""
    net = generator(official)
    assert (net.z_dim, net.num_ws, net.resolution, net.channels) == (DIM, 6, 16, CHANNELS)
    x, w = torch.randn(2, 6, 4, 4), torch.randn(2, DIM)
    for conv, layer, given, noise in (("conv0", 0, x, net.noises[1]), ("conv1", 1, None, net.noises[2])):
        part = {k.split(f"b8.{conv}.")[1]: v for k, v in official.items() if f"b8.{conv}." in k}
        s = w @ part["affine.weight"].T / DIM**0.5 + part["affine.bias"]
        if given is None:
            given = torch.randn(2, 5, 8, 8)
        weight = part["weight"][None] * s[:, None, :, None, None]
        weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        y = torch.cat([published(g[None], v, conv == "conv0") for g, v in zip(given, weight)])
        y = y + part["noise_const"] * part["noise_strength"] + part["bias"][:, None, None]
        expected = F.leaky_relu(y, 0.2) * 2**0.5
        from inversionbench.models.style import upsample

        got = net.blocks[1].layers[layer](upsample(given) if conv == "conv0" else given, w, noise)
        inner = slice(2, -2) if conv == "conv0" else slice(None)
        assert torch.allclose(got[..., inner, inner], expected[..., inner, inner], atol=1e-4)


def published(x, weight, up):
    """One image, one set of weights (outputs, inputs, 3, 3)."""
    if not up:
        return F.conv2d(x, weight, padding=1)
    wide = torch.zeros(*x.shape[:2], 8, 8)
    wide[..., ::2, ::2] = x
    y = F.conv2d(wide, weight.flip(2, 3), padding=1)  # a true convolution
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    kernel = (taps[:, None] * taps).expand(y.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(y, (2, 1, 2, 1)), kernel, groups=y.shape[1])


def test_mapping_truncation_and_colours(official):
    net = generator(official)
    z = torch.randn(3, DIM)
    h = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(DEPTH):
        h = h @ official[f"mapping.fc{i}.weight"].T * 0.01 / DIM**0.5 + official[f"mapping.fc{i}.bias"] * 0.01
        h = F.leaky_relu(h, 0.2) * 2**0.5
    assert torch.allclose(net.style(z), h, atol=1e-6)
    near = official["mapping.w_avg"] + 0.5 * (h - official["mapping.w_avg"])
    assert torch.allclose(net.mapping(z, 0.5)[:, 0], near, atol=1e-6)
    x, img = net.run_blocks(net.mapping(z), 0, 1)
    part = {k.split("b4.torgb.")[1]: v for k, v in official.items() if "b4.torgb." in k}
    s = (h @ part["affine.weight"].T / DIM**0.5 + part["affine.bias"]) / 6**0.5
    rgb = torch.einsum("oi,ni,nihw->nohw", part["weight"][:, :, 0, 0], s, x) + part["bias"][:, None, None]
    assert torch.allclose(img, rgb, atol=1e-4)


def test_networks_of_another_kind_are_refused(official):
    with pytest.raises(UserError, match="labels"):
        generator({**official, "mapping.embed.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="StyleGAN2"):
        generator({k: v for k, v in official.items() if "b8" not in k})
