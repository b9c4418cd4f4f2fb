"""SPEAR: whole batches exactly, and a certificate that never lies."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from federated_cells import data, evaluate, generator, reconstruct, scenario, target
from torch import nn

from inversionbench.core.errors import AccessDenied
from inversionbench.defenses.gradient_pruning.dgc import Dgc
from inversionbench.gradients.low_rank import recover

MLP = {"name": "mlp", "widths": [256, 64]}


def gradient(x, units, rng, shift=0.0, classes=10):
    """(dW, db, W, b) of the first layer of an untrained network for the batch x. shift: of its biases, which makes
    units turn on more often, as training does."""
    n, d = x.shape
    w, b = ((2 * torch.rand(units, *more, generator=rng) - 1) / d**0.5 for more in ((d,), ()))
    b = b + shift
    head = torch.randn(classes, units, generator=rng) / units**0.5
    leaf, bias = w.requires_grad_(), b.requires_grad_()
    loss = nn.functional.cross_entropy((x @ leaf.T + bias).relu() @ head.T, torch.randint(classes, (n,), generator=rng))
    return (*torch.autograd.grad(loss, [leaf, bias]), w.detach(), b.detach())


def distance(x, found):
    """Largest distance of a true row to the nearest one that was found, as a share of its norm."""
    return float((torch.cdist(x.double(), found).min(1).values / x.double().norm(dim=1)).max())


def test_eight_images_are_exact_and_certified_in_seconds():
    """The bar: batch 8, an untrained network, under 5 s of one core. Measured 0.3 s, error 2e-8; asked for 1e-4."""
    pixels = (data().private.images().flatten(1)[:8] - 0.5) / 0.25
    parts = gradient(pixels, 256, generator(3))
    started = time.process_time()
    found = recover(*parts, 8, generator(1), 100_000)
    assert time.process_time() - started < 5
    assert found.certified
    assert distance(pixels, found.x) < 1e-4


def trial(seed):
    """Everything that may go wrong, drawn: small layers, noise, pruning, trained biases, rows that are nearly alike."""
    rng = generator(seed)
    pick = lambda *values: values[int(torch.randint(len(values), (), generator=rng))]
    batch, units = pick(1, 2, 3, 4, 6), pick(24, 48, 96)
    x = torch.randn(batch, 60, generator=rng)
    alike = pick(0.0, 0.0, 0.9, 0.999)
    x = alike * x[:1] + (1 - alike**2) ** 0.5 * x
    dw, db, w, b = gradient(x, units, rng, pick(0.0, 0.0, 0.5))
    noise = pick(0.0, 0.0, 1e-4, 1e-2, 0.1, 0.5) * dw.square().mean().sqrt()
    dw, db = (t + noise * torch.randn(t.shape, generator=rng) for t in (dw, db))
    if pick(False, False, True):
        kept = dw.abs() >= dw.abs().flatten().quantile(pick(0.01, 0.5, 0.9))
        dw = dw * kept
    found = recover(dw, db, w, b, batch, rng, 3000)
    return found.certified, found.x is not None and distance(x, found.x) < 0.1


def test_no_certificate_is_wrong_in_200_trials():
    """Also able to fail: both certified and other answers are there, and some that are not certified are wrong."""
    claims, right = (np.array(values) for values in zip(*map(trial, range(200))))
    assert not (claims & ~right).any()
    assert 40 < claims.sum() < 160
    assert (~claims & ~right).sum() > 20


def test_rows_that_turn_on_the_same_units_have_no_certificate():
    """Every mixture of the two explains the gradient as well."""
    rng = generator(0)
    x = torch.randn(1, 60, generator=rng).repeat(2, 1)
    x[1] += 1e-4 * torch.randn(60, generator=rng)
    assert not recover(*gradient(x, 96, rng), 2, rng, 2000).certified


def test_noise_breaks_the_answer_and_takes_the_certificate_first():
    """Batch 4: error 2e-8 without noise, 0.002 at 1 %, 0.02 at 10 % of the entries' size, nothing at all at 100 %."""
    pixels = (data().private.images().flatten(1)[:4] - 0.5) / 0.25
    dw, db, w, b = gradient(pixels, 256, generator(3))
    certified, errors = [], []
    for level in (0.0, 1e-3, 1.0):
        rng = generator(5)
        noise = level * dw.square().mean().sqrt()
        seen = [t + noise * torch.randn(t.shape, generator=rng) for t in (dw, db)]
        found = recover(*seen, w, b, 4, rng, 4000)
        certified.append(found.certified)
        errors.append(1.0 if found.x is None else distance(pixels, found.x))
    assert certified == [True, True, False]
    assert errors[0] < 1e-5 < errors[1] < 0.02 < 0.1 < errors[2]


def test_the_cell_of_a_batch():
    """Four images of each client, exact: the largest PSNR, 60 dB, and every certificate right."""
    where = scenario(MLP, subjects=1, batch_size=4)
    made = target(where)
    done = evaluate(where, made, reconstruct(where, made, "spear"))
    assert done.metrics["psnr"].min() > 59
    assert (done.metrics["certified"] == 1).all()
    assert done.facts["certified_wrong"] == 0
    assert "certified" not in evaluate(where, made, reconstruct(where, made, "egia")).metrics


def test_pruning_ends_it():
    """At 90 % of the entries removed: no certificate, and no image above 30 dB (exact ones have 60)."""
    where, defense = scenario(MLP, subjects=1, batch_size=4), Dgc(strength=0.9)
    made = target(where, defense)
    done = evaluate(where, made, reconstruct(where, made, "spear", defense=defense, tries=4000))
    assert not done.metrics["certified"].any()
    assert done.metrics["psnr"].max() < 30


def test_several_steps_are_refused():
    where = scenario(MLP, subjects=1, batch_size=2, local_batch=1, sends="delta")
    with pytest.raises(AccessDenied, match="one step"):
        reconstruct(where, target(where), "spear")
    with pytest.raises(AccessDenied, match="linear layer"):
        reconstruct(where := scenario(subjects=1), target(where), "spear")
