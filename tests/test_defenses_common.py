"""Fake detectors that every defense must pass: it implements what it declares, and strength 0 does nothing.

That more strength does more is tested with each method, on a quantity of its own.
"""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from inversionbench.core import registry
from inversionbench.core.defense import NONE, Client, Defense, Sending, Step, acted
from inversionbench.core.levels import HOOKS
from inversionbench.models.base import Trace

DEFENSES = list(registry.methods("defense"))


class Network(nn.Module):
    """A small image classifier that reports its layers, with everything that a hook may look for."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 16, 5)

    def trace(self, x):
        hidden = self.norm(self.conv(x)).relu()
        features = nn.functional.adaptive_avg_pool2d(hidden, 4).flatten(1)
        return Trace(self.fc(features), features, {"conv": hidden, "features": features})

    def forward(self, x):
        return self.trace(x).logits


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0):
    torch.manual_seed(seed)
    return Network().eval()


def batch(n=6):
    x = torch.rand(n, 3, 16, 16, generator=generator(1))
    return x, torch.arange(n) % 5


def step():
    """What the hooks of a training step see, and the gradient of the plain loss."""
    model, (x, y) = network(), batch()
    seen = model.trace(x)
    ctx = Step(model, x, y, seen.logits, seen.hidden, 3, 1, 4, 5, generator(2))
    return ctx, dict(zip(dict(model.named_parameters()), torch.autograd.grad(
        nn.functional.cross_entropy(seen.logits, y), list(model.parameters()), retain_graph=True)))  # fmt: skip


def client():
    ctx, update = step()
    parameters = {name: p.detach() for name, p in ctx.model.named_parameters()}
    return Client(0, 1, 0, 4, 6, parameters, generator(3)), update


def same(a, b):
    """Equal bit for bit, through nested containers."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def answer(defense, hook):
    """What a hook makes of inputs that are the same at every call."""
    if hook == "training_set":
        return defense.training_set(*batch(), generator())
    if hook == "train_transform":
        return defense.train_transform(*batch(), generator(), 3)
    if hook == "build_model":
        model = defense.build_model(network).eval()
        return dict(model.state_dict()), model(batch()[0])
    if hook == "loss":
        return defense.loss(step()[0])
    if hook == "gradient":
        ctx, gradients = step()
        return defense.gradient(gradients, ctx)
    if hook == "client_update":
        ctx, update = client()
        return defense.client_update(update, ctx)
    if hook == "aggregate":
        _, update = client()
        return defense.aggregate([update, {k: 2 * v for k, v in update.items()}], [1.0, 3.0])
    if hook == "release_features":
        z = torch.randn(7, 4, 8, 8, generator=generator(4))
        return [defense.release_features(z, Sending(network(), training, generator())) for training in (True, False)]
    assert hook == "release"
    return defense.release(torch.randn(7, 5, generator=generator(4)), generator())


def overridden(cls):
    return {hook for hook in HOOKS if getattr(cls, hook) is not getattr(Defense, hook)}


def undefended(name):
    """The defense at strength 0."""
    return registry.get("defense", name)(strength=0.0)


@pytest.mark.parametrize("name", DEFENSES)
def test_declared_hooks_are_the_implemented_ones(name):
    cls = registry.get("defense", name)
    assert set(cls.hooks) <= set(HOOKS)
    assert set(cls.hooks) == overridden(cls)


@pytest.mark.parametrize("name", DEFENSES)
def test_declarations(name):
    described = registry.describe("defense", name)
    assert described.fields["strength"] == 0.0  # the default is no defense
    assert set(described.attributes["inputs"]) <= {"image", "table", "text", "audio", "graph"}
    if {"client_update", "aggregate"} & described.attributes["hooks"]:
        assert described.attributes["federated"]
    if described.attributes["keeps_labels"]:
        assert "release" in described.attributes["hooks"]


@pytest.mark.parametrize(
    ("name", "hook"),
    [(n, h) for n in DEFENSES for h in HOOKS if h in registry.describe("defense", n).attributes["hooks"]],
)
def test_strength_0_is_the_identity(name, hook):
    assert same(answer(undefended(name), hook), answer(NONE, hook))


@pytest.mark.parametrize("name", DEFENSES)
def test_strength_0_sends_dense_updates(name):
    _, update = client()
    assert undefended(name).bytes_sent(update) == NONE.bytes_sent(update)


@pytest.mark.parametrize("name", DEFENSES)
def test_public_knowledge_is_plain(name):
    told = undefended(name).public_knowledge()
    assert isinstance(told, dict)
    assert not told or all(isinstance(key, str) for key in told)
    json.dumps({k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in told.items()})


@pytest.mark.parametrize(
    ("own", "plain", "expected"),
    [(9.0, 6.0, True), (6.6, 6.0, False), (3.0, 6.0, False), (None, 6.0, None), (9.0, None, None)],
)
def test_whether_a_defense_acted(own, plain, expected):
    def target(value):
        return {} if value is None else {"effect_logit_norm": value}

    smoothing = registry.get("defense", "negative_label_smoothing")
    assert acted(smoothing.effect, target(own), target(plain)) is expected
    assert acted(Defense.effect, target(own), target(plain)) is None  # declares nothing
    positive = registry.get("defense", "label_smoothing")  # moves it down
    assert acted(positive.effect, {"effect_logit_norm": 3.0}, {"effect_logit_norm": 6.0}) is True
    assert acted(positive.effect, {"effect_logit_norm": 6.0}, {"effect_logit_norm": 6.0}) is False


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"keeps_label": True}, "unknown attribute 'keeps_label': did you mean 'keeps_labels'"),
        ({"effect": ("effect_logits", "higher", 1.5)}, "unknown effect 'effect_logits': did you mean"),
        ({"effect": ("effect_confidence", "lower", 1.5)}, "a ratio above 1"),
        ({"effect": ("effect_confidence", "higher", 0.5)}, "a ratio above 1"),
    ],
)
def test_declarations_that_nothing_reads_are_refused(body, message):
    with pytest.raises(TypeError, match=f"defense Wrong: .*{message}"):
        type("Wrong", (Defense,), body)


class Doubling(Defense):
    """Declares nothing, doubles gradients, also at strength 0: the tests above must see both faults."""

    def gradient(self, gradients, ctx):
        return {name: 2 * g for name, g in gradients.items()}


def test_the_detectors_detect():
    assert overridden(Doubling) == {"gradient"}
    assert set(Doubling.hooks) != overridden(Doubling)
    assert not same(answer(Doubling(), "gradient"), answer(NONE, "gradient"))
    for hook in set(HOOKS) - {"gradient"}:
        assert same(answer(Doubling(), hook), answer(NONE, hook))
