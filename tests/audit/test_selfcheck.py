"""The self-check names the one thing that a user declared wrongly, and says "matches" to float precision alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from inversionbench.audit.selfcheck import Claim, check, named
from inversionbench.core.errors import UserError
from inversionbench.core.protocol import Protocol
from inversionbench.models.own import Inputs, OwnVictim

BATCH, SHAPE = 4, (3, 8, 8)
X = torch.rand(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 3, 1, 3])
GRADIENT = Claim(Protocol(batch_size=BATCH))
STEPS = Claim(Protocol(batch_size=BATCH, sends="delta", local_rate=0.1, local_batch=2, epochs=2))
ONE_STEP = Claim(Protocol(batch_size=BATCH, sends="delta", local_rate=0.1))


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
                        nn.Flatten(), nn.Dropout(dropout), nn.Linear(96, 5))  # fmt: skip
    net[1].running_mean.copy_(torch.randn(6) / 3)
    net[1].running_var.copy_(torch.rand(6) + 0.5)
    return net


def really(net: nn.Module, x: torch.Tensor, y: torch.Tensor, claim: Claim, train: bool = False, momentum: float = 0.0):
    """The client's update by plain PyTorch, as a user's training loop makes it."""
    net.train(train)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (claim.inputs.mean, claim.inputs.std))
    x = (x - mean) / std
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    optimiser = torch.optim.SGD(net.parameters(), claim.protocol.local_rate, momentum)
    for i, j in claim.protocol.steps:
        optimiser.zero_grad()
        F.cross_entropy(net(x[i:j]), y[i:j], reduction=claim.reduction).backward()
        if claim.protocol.sends == "delta":
            optimiser.step()
    if claim.protocol.sends == "delta":
        return {n: p.detach() - before[n] for n, p in net.named_parameters()}
    return {n: p.grad.clone() for n, p in net.named_parameters()}


def checked(update, claim: Claim, net: nn.Module | None = None):
    wrapped = OwnVictim(net or network(), SHAPE, claim.inputs)
    found, missing = named(update, wrapped)
    return check(wrapped, found, X, Y, claim), missing


def other(claim: Claim, **changed) -> Claim:
    return replace(claim, protocol=replace(claim.protocol, **changed))


@pytest.mark.parametrize("claim", [GRADIENT, ONE_STEP, STEPS], ids=["gradient", "one step", "steps"])
@pytest.mark.parametrize("train", [False, True])
def test_what_was_declared_rightly_matches_and_nothing_else_is_said(claim, train):
    claim = other(claim, bn="train_private" if train else "eval_public")
    found, _ = checked(really(network(), X, Y, claim, train), claim)
    assert found.matches, found.said
    assert found.changed == ""
    assert found.error < found.allowed / 2


DECLARED_OTHERWISE = {
    "batch norm": (GRADIENT, {"train": True}, {}, "bn: train_private"),
    "batch norm in steps": (STEPS, {"train": True}, {}, "bn: train_private"),
    "sum of losses": (GRADIENT, {}, {"reduction": "sum"}, "sum over its samples"),
    "sum of losses in steps": (STEPS, {}, {"reduction": "sum"}, "sum over its samples"),
    "difference of weights": (GRADIENT, {}, {"protocol": ONE_STEP.protocol}, "learning rate 0.1, no gradient"),
    "gradient": (ONE_STEP, {}, {"protocol": GRADIENT.protocol}, "the gradient of one step"),
    "learning rate": (STEPS, {}, {"protocol": replace(STEPS.protocol, local_rate=0.037)}, "is 0.037, not 0.1"),
    "epochs": (STEPS, {}, {"protocol": replace(STEPS.protocol, epochs=3)}, "3 epochs, not 2"),
    "local batch": (STEPS, {}, {"protocol": replace(STEPS.protocol, local_batch=1)}, "8 local steps of 1"),
    "inputs": (GRADIENT, {}, {"inputs": Inputs((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}, "ImageNet"),
    "inputs in steps": (STEPS, {}, {"inputs": Inputs((0.5,), (0.5,))}, "mean 0.5, std 0.5"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", DECLARED_OTHERWISE)
def test_the_one_mistake_is_named(mistake):
    declared, how, made, says = DECLARED_OTHERWISE[mistake]
    found, _ = checked(really(network(), X, Y, replace(declared, **made), **how), declared)
    assert found.matches, found.said
    assert says in found.changed


@pytest.mark.parametrize("claim", [GRADIENT, STEPS], ids=["gradient", "steps"])
def test_a_turned_sign_is_named(claim):
    found, _ = checked({n: -t for n, t in really(network(), X, Y, claim).items()}, claim)
    assert "the sign is turned" in found.changed


def test_another_order_of_samples_is_named():
    order = [2, 0, 3, 1]
    found, _ = checked(really(network(), X[order], Y[order], STEPS), STEPS)
    assert found.matches
    assert "in the order" in found.changed
    assert sorted(found.claim.order[:2]) == [0, 2]  # within a step the order changes nothing


def test_missing_layers_are_named_and_the_rest_is_compared():
    update = really(network(), X, Y, GRADIENT)
    found, missing = checked({n: t for n, t in update.items() if not n.startswith("0.")}, GRADIENT)
    assert missing == ["0.weight", "0.bias"]
    assert found.matches


def test_dropout_and_momentum_are_no_match_and_are_suspected():
    torch.manual_seed(5)
    found, _ = checked(really(network(0.5), X[:1], Y[:1], GRADIENT, train=True), GRADIENT, network(0.5))
    assert not found.matches
    assert any("has dropout (5)" in hint and "6.weight are zero" in hint for hint in found.hints)
    found, _ = checked(really(network(), X, Y, STEPS, momentum=0.9), STEPS)
    assert not found.matches
    assert any("momentum" in hint for hint in found.hints)


def test_a_thousandth_of_noise_is_no_match():
    update = really(network(), X, Y, GRADIENT)
    size = sum(float(t.square().sum()) for t in update.values()) ** 0.5
    count = sum(t.numel() for t in update.values())
    rng = torch.Generator().manual_seed(2)
    noisy = {n: t + 1e-3 * size / count**0.5 * torch.randn(t.shape, generator=rng) for n, t in update.items()}
    found, _ = checked(noisy, GRADIENT)
    assert not found.matches
    assert 5e-4 < found.error < 2e-3


def test_what_does_not_belong_to_the_network_is_refused():
    update = really(network(), X, Y, GRADIENT)
    for wrong, says in (
        ({**update, "7.weight": torch.zeros(3)}, "'7.weight'"),
        ({**update, "6.bias": torch.zeros(3)}, r"6.bias has shape \(3,\)"),
        ({**update, "6.bias": torch.full((5,), torch.nan)}, "not finite"),
        ({}, "empty"),
        ({n: t * 0 for n, t in update.items()}, "zero everywhere"),
    ):
        with pytest.raises(UserError, match=says):
            checked(wrong, GRADIENT)
    assert checked({f"module.{n}": t for n, t in update.items()}, GRADIENT)[0].matches
