"""Attackers who know how a client's images are transformed, and who learn an encoder in place of a private one."""

import pytest
import torch
from defended_cells import cosine, data, generator, images, network, psnr, reconstruct, scenario, target
from torch.nn import functional as F

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.errors import AccessDenied
from inversionbench.core.protocol import Protocol
from inversionbench.gradients.problem import Problem
from inversionbench.models.operations import OPERATIONS, apply
from inversionbench.tracks.federated.attacks._changes import Changed, changes

STEPS = {"steps": 120}


def defended(name, strength, **params):
    return registry.get("defense", name)(strength=strength, **params)


def run(where, defense, attack, **params):
    made = target(where, defense)
    answer = reconstruct(where, made, attack, defense=defense, **params)
    return psnr(where, made, answer), answer


@pytest.mark.parametrize(
    "defense",
    [defended("ats", 3, policy="10-49-23+1-30-40"), defended("image_augmentation", 5, policy="rotate,contrast")],
    ids=["ats", "image_augmentation"],
)
def test_what_the_client_did_is_among_the_changes(defense):
    x, y = images(6)
    sent, _ = defense.train_transform(x, y, generator(3), 0)
    for i in range(len(x)):
        own = changes(defense.public_knowledge(), int(y[i]))
        every = Changed(own)(x[i].expand(len(own), -1, -1, -1))
        assert float((every - sent[i]).abs().amax((1, 2, 3)).min()) < 1e-5


def test_every_image_has_its_own_change_and_a_gradient():
    x = data().private.images()[: len(OPERATIONS)].clone().requires_grad_()
    rows = [((name, {"solarize": 0.6, "posterize": 5.0}.get(name, 0.9)),) for name in OPERATIONS]
    rows = [*rows[1:], rows[0]]
    out = Changed(rows)(x)
    for i, ((name, amount),) in enumerate(rows):
        assert torch.allclose(out[i], apply(x[i : i + 1], name, amount)[0], atol=1e-6)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert bool((gradient.flatten(1).abs().sum(1) > 0).all())


def test_every_known_transformation_is_tried():
    where, defense = scenario(subjects=8), defended("ats", 2, policy="10-49")  # moved by a quarter, then 30 degrees
    _, answer = run(where, defense, "invert_transform", steps=20)
    assert answer.notes["adaptive"] is True
    assert answer.notes["changes"] == [4] * 8
    assert answer.cost["gradient_evaluations"] == 8 * 4 * 20


def test_without_a_policy_nothing_is_undone():
    where = scenario(subjects=2)
    plain, _ = run(where, NONE, "inverting_gradients", **STEPS)
    known, answer = run(where, NONE, "invert_transform", **STEPS)
    assert known == pytest.approx(plain, abs=1.0)
    assert answer.notes["changes"] == [1, 1]
    with pytest.raises(AccessDenied, match="one image in one step"):
        run(scenario(subjects=2, batch_size=2), NONE, "invert_transform", steps=2)


def client_with_encoder(strength, seed=0):
    """A round of four clients whose images went through one private encoder, and that encoder."""
    x, y = images(4)
    net, defense = network(seed), defended("rve_pfl", strength).for_client(x, y, generator(5))
    code, _ = defense.train_transform(x, y, generator(6), 0)
    rows = []
    for z, label in zip(code.detach(), y):
        loss = F.cross_entropy(net(z[None]), label[None])
        rows.append(torch.autograd.grad(loss, list(net.parameters())))
    update = {n: torch.stack(g) for (n, _), g in zip(net.named_parameters(), zip(*rows))}
    return Problem(net, Protocol(), update), y[:, None], x, defense.__dict__["encoder"].requires_grad_(False)


def test_a_surrogate_learns_the_task_behind_the_shared_network():
    where, defense = scenario(subjects=2), defended("rve_pfl", 1.0)
    plain, naive = run(where, defense, "inverting_gradients", **STEPS)
    known, answer = run(where, defense, "surrogate_encoder", fit=500, **STEPS)
    assert answer.notes["encoder_accuracy"] > 0.2  # ten classes
    assert answer.cost["encoder_passes"] == 500 * 32
    assert cosine([naive.data], [answer.data]) < 0.99  # another search
    assert max(plain, known) < run(where, NONE, "inverting_gradients", **STEPS)[0] - 3  # other encoders do not transfer
    bare, same = run(where, NONE, "surrogate_encoder", **STEPS)
    assert "encoder_accuracy" not in same.notes
    assert bare > known
