"""Classifiers report logits, features and blocks; generators and critics have the shapes they promise."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from inversionbench.core.errors import UserError
from inversionbench.models.base import trace
from inversionbench.models.classifiers import SMALL, build, load
from inversionbench.models.generators import Critic, Generator, UpConv, stages
from inversionbench.models.large import LARGE
from inversionbench.models.names import CLASSIFIERS, check_model


def test_every_name_has_a_builder():
    assert set(SMALL) | set(LARGE) == set(CLASSIFIERS)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_trace_reports_logits_features_and_blocks(name):
    """On the meta device: shapes of the largest networks without their memory."""
    with torch.device("meta"):
        net = build({"name": name}, (3, 64, 64), 7).eval()
        seen = trace(net, torch.empty(2, 3, 64, 64))
    assert seen.logits.shape == (2, 7)
    assert seen.features is not None
    assert seen.features.shape[0] == 2
    assert net.head.in_features == seen.features.shape[1]
    assert all(len(h) == 2 for h in seen.hidden.values())
    assert len(seen.hidden) == {"softmax": 0, "mlp": 1, "cnn": 4, "plain": 3, "resnet": 4}.get(name, len(seen.hidden))
    if name in LARGE:
        assert len(seen.hidden) >= 4


def test_features_and_head_give_the_logits_and_forward_is_the_trace():
    torch.manual_seed(0)
    x = torch.rand(3, 1, 28, 28)
    for name in ("softmax", "mlp", "cnn", "resnet", "plain"):
        net = build({"name": name}, (1, 28, 28), 5).eval()
        seen = net.trace(x)
        assert torch.equal(net.head(seen.features), seen.logits)
        assert torch.equal(net(x), seen.logits)
        last = list(seen.hidden.values())[-1] if seen.hidden else net.first(x)
        assert torch.equal(net.pool(last), seen.features)


def test_the_small_target_has_the_size_of_the_study():
    net = build({"name": "cnn"}, (3, 32, 32), 50)
    assert sum(p.numel() for p in net.parameters()) == 147866


def test_a_module_without_trace_reports_logits_alone():
    seen = trace(nn.Flatten(), torch.ones(2, 3))
    assert seen.features is None
    assert seen.hidden == {}


def test_a_loaded_classifier_is_frozen_and_the_same():
    torch.manual_seed(1)
    net = build({"name": "cnn", "width": 4}, (3, 16, 16), 5).eval()
    again = load({"name": "cnn", "width": 4}, (3, 16, 16), 5, net.state_dict())
    x = torch.rand(2, 3, 16, 16)
    assert torch.allclose(net(x), again(x), atol=1e-6)
    assert not any(p.requires_grad for p in again.parameters())
    assert not again.training


def test_unknown_models_and_options_are_refused():
    for wrong, words in (
        ({}, "needs `name`"),
        ({"name": "resnet8"}, "did you mean 'resnet"),
        ({"name": "cnn", "widht": 3}, "did you mean 'width'"),
        ({"name": "cnn", "width": 2.5}, "expected a whole number"),
        ({"name": "cnn", "width": 0}, "at least 1"),
        ({"name": "mlp", "activation": 3}, "Allowed: relu, sigmoid"),
    ):
        with pytest.raises(UserError, match=words):
            check_model(wrong, "model")
    with pytest.raises(UserError, match="Allowed: relu, sigmoid"):
        build({"name": "mlp", "activation": "gelu"}, (4,), 2)
    with pytest.raises(ValueError, match="vgg16_bn: expected images"):
        build({"name": "vgg16_bn"}, (1, 28, 28), 2)


def test_upconv_is_nearest_upsampling_then_a_convolution():
    torch.manual_seed(0)
    layer, x = UpConv(3, 4, bias=True).double(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    plain = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, layer.bias, padding=1)
    assert torch.allclose(layer(x), plain, atol=1e-12)


@pytest.mark.parametrize("upsample", ["nearest", "transposed"])
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (3, 64), (3, 16)])
def test_generators_and_critics_fit_each_other(upsample, channels, side):
    torch.manual_seed(0)
    made = Generator(10, 4, channels, side, upsample)(torch.randn(3, 10))
    assert made.shape == (3, channels, side, side)
    assert made.min() >= 0
    assert made.max() <= 1
    for norm in ("spectral", "instance"):
        assert Critic(4, channels, side, norm)(made).shape == (3,)


def test_sides_that_do_not_double_are_refused():
    assert stages(64) == 4
    for side in (30, 4, 7):
        with pytest.raises(ValueError, match="image side"):
            stages(side)
    with pytest.raises(ValueError, match="upsample"):
        Generator(4, 4, 3, 32, "cubic")
    with pytest.raises(ValueError, match="critic norm"):
        Critic(4, 3, 32, "batch")
