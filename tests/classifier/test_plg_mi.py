"""PLG-MI: random views, and a search that adds to what the conditional prior gives away."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from classifier_cells import data, doubt, generator, scenario
from target_cells import again, run

from inversionbench.core.attack import Reconstruction
from inversionbench.latent.losses import IDENTITY
from inversionbench.latent.views import Views, warp
from inversionbench.tracks.classifier.attacks.plg_mi import PlgMi

ATTACK = PlgMi(iterations=30, rate=0.05, box=2.0, restarts=4, keep_at=(10,))
ROWS = scenario().subjects * 4


def test_the_search_adds_to_random_samples_of_the_class():
    """Cross entropy of the target: 0.04 (sd 0.02 over four seeds) of that of the samples it starts from."""
    answer, oracle = run(ATTACK)
    assert oracle.ledger.passes == ROWS * 30 * 2
    assert [budget for budget, _ in answer.checkpoints] == [0, 20, 60]
    assert torch.equal(answer.checkpoints[-1][1], answer.data)
    start = Reconstruction(answer.checkpoints[0][1], answer.labels)
    assert doubt(answer) < 0.75 * doubt(start)


def test_same_seed_same_bits():
    short = replace(ATTACK, iterations=3, keep_at=())
    first, same, other = (again(short, seed=s)[0].data for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_margin_keeps_pushing_where_the_cross_entropy_stops():
    """Of a class that leads by far, in float32."""
    logits, y = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True), torch.tensor([0])
    push = [torch.autograd.grad(IDENTITY[name](logits, y).sum(), logits)[0] for name in ("cross_entropy", "margin")]
    assert push[0].abs().max() < 1e-6
    assert push[1].abs().max() == 1


def test_views_are_images_that_a_gradient_passes():
    x = data().public.images(slice(8)).requires_grad_(True)
    seen = Views()(x, generator())
    assert seen.shape == x.shape
    assert 0 <= seen.min() <= seen.max() <= 1
    (gradient,) = torch.autograd.grad(seen.sum(), x)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    assert torch.equal(Views()(x, generator()), seen)
    assert not torch.equal(Views()(x, generator(1)), seen)


def test_no_change_is_the_image_and_a_flip_its_mirror_image():
    x = data().public.images(slice(4))
    still = Views(scale=(1.0, 1.0), turn=0.0, flip=0.0, brightness=0.0, contrast=0.0)
    assert torch.allclose(still(x, generator()), x, atol=1e-5)
    mirror = replace(still, flip=1.0)
    assert torch.allclose(mirror(x, generator()), x.flip(-1), atol=1e-5)


def test_a_crop_keeps_its_share_and_stays_inside():
    """Corners of the view, seen in the image; their quadrangle has the wanted area."""
    maps = Views(scale=(0.5, 0.6), turn=0.0)._maps(200, generator())
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [-1, 1, 1]])
    at = corners @ maps.mT
    assert at.abs().max() <= 1 + 1e-5
    sides = (at[:, 1] - at[:, 0]).norm(dim=1) * (at[:, 2] - at[:, 0]).norm(dim=1) / 4
    assert 0.5 - 1e-5 <= sides.min() < 0.52
    assert 0.58 < sides.max() <= 0.6 + 1e-5


def test_a_quarter_turn_is_exact():
    x = torch.rand(1, 1, 4, 4, generator=generator())
    turned = warp(x, torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]]))
    assert torch.allclose(turned, x.rot90(1, (2, 3)), atol=1e-5)


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="views"):
        PlgMi(views=0)
