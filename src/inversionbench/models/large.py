"""The larger classifiers of the literature, from torchvision where it has the architecture.

VGG16-BN, IR-152 and FaceNet64 are the low-resolution face targets (64 x 64), FaceNet112 their usual
evaluator; ResNet-18/152, Inception-v3 and ViT-B/16 are used at 224 or 299 pixels; EfficientNet-B0 to B2 are
the students of attacks that copy the target. All start from random weights: pretrained ones are an input
that a user has to declare. torchvision is imported on use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.models.classifiers import Normalise, Staged, conv, flat_pool

# widths and counts of the units of the four stages of IR networks
IR_WIDTHS = (64, 128, 256, 512)
IR_UNITS = {50: (3, 4, 14, 3), 152: (3, 8, 36, 3)}


def _rgb(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 3 or shape[0] != 3:
        raise ValueError(f"{name}: expected images (3, height, width), got shape {tuple(shape)}")


def vgg16_bn(shape: tuple[int, ...], classes: int) -> Staged:
    """VGG16-BN's convolutions as five blocks, each ending in its max-pool; features 512 x 2 x 2 with batch
    normalisation, as the 64-pixel face targets have it instead of the wide linear layers."""
    from torchvision import models

    _rgb(shape, "vgg16_bn")
    layers: list[nn.Module] = []
    blocks: dict[str, nn.Module] = {}
    for layer in models.vgg16_bn(weights=None).features:
        layers.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            blocks[f"block{len(blocks) + 1}"] = nn.Sequential(*layers)
            layers = []
    pool = nn.Sequential(flat_pool(2), nn.BatchNorm1d(2048))
    return Staged(Normalise(), blocks, pool, nn.Linear(2048, classes))


class Unit(nn.Module):
    """The improved residual unit of face networks: BN, conv, BN, PReLU, strided conv, BN, plus a shortcut."""

    def __init__(self, a: int, b: int, stride: int):
        super().__init__()
        shortcut = nn.Sequential(conv(a, b, 1, stride), nn.BatchNorm2d(b))
        self.short: nn.Module = nn.MaxPool2d(1, stride) if a == b else shortcut
        self.body = nn.Sequential(
            nn.BatchNorm2d(a), conv(a, b), nn.BatchNorm2d(b), nn.PReLU(b), conv(b, b, 3, stride), nn.BatchNorm2d(b)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.short(x)


def _ir(shape: tuple[int, ...], classes: int, features: int, depth: int, side: int) -> Staged:
    _rgb(shape, f"ir{depth}")
    blocks: dict[str, nn.Module] = {"stem": nn.Sequential(conv(3, 64), nn.BatchNorm2d(64), nn.PReLU(64))}
    before = 64
    for i, (after, count) in enumerate(zip(IR_WIDTHS, IR_UNITS[depth], strict=True)):
        units = [Unit(before if k == 0 else after, after, 2 if k == 0 else 1) for k in range(count)]
        blocks[f"block{i + 1}"] = nn.Sequential(*units)
        before = after
    last = side // 16
    pool = nn.Sequential(
        nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(512 * last * last, features), nn.BatchNorm1d(features)
    )
    return Staged(Normalise(side=side), blocks, pool, nn.Linear(features, classes))


def ir152(shape: tuple[int, ...], classes: int, features: int = 512) -> Staged:
    return _ir(shape, classes, features, depth=152, side=64)


def facenet64(shape: tuple[int, ...], classes: int, features: int = 512) -> Staged:
    """The network that the face literature calls FaceNet64: IR-50 on 64 x 64."""
    return _ir(shape, classes, features, depth=50, side=64)


def facenet112(shape: tuple[int, ...], classes: int, features: int = 512) -> Staged:
    """The usual evaluator: IR-50 on images resized to 112 x 112."""
    return _ir(shape, classes, features, depth=50, side=112)


def _torchvision_resnet(name: str, shape: tuple[int, ...], classes: int, side: int) -> Staged:
    from torchvision import models

    _rgb(shape, name)
    net = getattr(models, name)(weights=None)
    blocks = {
        "stem": nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool),
        "block1": net.layer1, "block2": net.layer2, "block3": net.layer3, "block4": net.layer4,
    }
    return Staged(Normalise(side=side), blocks, flat_pool(), nn.Linear(net.fc.in_features, classes))


def resnet18(shape: tuple[int, ...], classes: int, side: int = 224) -> Staged:
    return _torchvision_resnet("resnet18", shape, classes, side)


def resnet152(shape: tuple[int, ...], classes: int, side: int = 224) -> Staged:
    return _torchvision_resnet("resnet152", shape, classes, side)


def inception_v3(shape: tuple[int, ...], classes: int, side: int = 299) -> Staged:
    """Inception-v3 without the auxiliary head; blocks end where the resolution changes."""
    from torchvision import models

    _rgb(shape, "inception_v3")
    net: Any = models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    blocks: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            net.Conv2d_1a_3x3, net.Conv2d_2a_3x3, net.Conv2d_2b_3x3, net.maxpool1,
            net.Conv2d_3b_1x1, net.Conv2d_4a_3x3, net.maxpool2,
        ),
        "mixed5": nn.Sequential(net.Mixed_5b, net.Mixed_5c, net.Mixed_5d),
        "mixed6": nn.Sequential(net.Mixed_6a, net.Mixed_6b, net.Mixed_6c, net.Mixed_6d, net.Mixed_6e),
        "mixed7": nn.Sequential(net.Mixed_7a, net.Mixed_7b, net.Mixed_7c),
    }
    return Staged(Normalise(side=side), blocks, flat_pool(), nn.Linear(2048, classes))


def _efficientnet(name: str, shape: tuple[int, ...], classes: int, side: int) -> Staged:
    """Stem and seven stages as blocks, the last 1x1 convolution with the seventh; side 0: images as they come."""
    from torchvision import models

    _rgb(shape, name)
    layers = list(getattr(models, name)(weights=None).features)
    blocks: dict[str, nn.Module] = {"stem": layers[0]}
    for i, layer in enumerate(layers[1:-2]):
        blocks[f"block{i + 1}"] = layer
    blocks[f"block{len(blocks)}"] = nn.Sequential(layers[-2], layers[-1])
    return Staged(Normalise(side=side or None), blocks, flat_pool(), nn.Linear(layers[-1].out_channels, classes))


def efficientnet_b0(shape: tuple[int, ...], classes: int, side: int = 0) -> Staged:
    return _efficientnet("efficientnet_b0", shape, classes, side)


def efficientnet_b1(shape: tuple[int, ...], classes: int, side: int = 0) -> Staged:
    return _efficientnet("efficientnet_b1", shape, classes, side)


def efficientnet_b2(shape: tuple[int, ...], classes: int, side: int = 0) -> Staged:
    return _efficientnet("efficientnet_b2", shape, classes, side)


class Patches(nn.Module):
    """The first layer of a vision transformer: patches to tokens, class token, position embedding."""

    def __init__(self, net: Any):
        super().__init__()
        self.projection = net.conv_proj
        self.token = net.class_token
        self.position = net.encoder.pos_embedding

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.projection(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1) + self.position


class ClassToken(nn.Module):
    """Final layer normalisation, then the class token: (n, tokens, width) -> (n, width)."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)[:, 0]


def vit_b_16(shape: tuple[int, ...], classes: int, side: int = 224) -> Staged:
    from torchvision import models

    _rgb(shape, "vit_b_16")
    net: Any = models.vit_b_16(weights=None, image_size=side)
    blocks: dict[str, nn.Module] = {"patches": Patches(net)}
    for i, layer in enumerate(net.encoder.layers):
        blocks[f"block{i + 1}"] = layer
    return Staged(Normalise(side=side), blocks, ClassToken(net.encoder.ln), nn.Linear(net.hidden_dim, classes))


LARGE: dict[str, Callable[..., nn.Module]] = {
    "vgg16_bn": vgg16_bn, "ir152": ir152, "facenet64": facenet64, "facenet112": facenet112,
    "resnet18": resnet18, "resnet152": resnet152, "inception_v3": inception_v3, "vit_b_16": vit_b_16,
    "efficientnet_b0": efficientnet_b0, "efficientnet_b1": efficientnet_b1, "efficientnet_b2": efficientnet_b2,
}
