"""SecCNN: where upsampling leaves the first layer's input undetermined, and who is stopped by that."""

import pytest
import torch
from federated_cells import data, generator, psnr, reconstruct, scenario, target
from torch.nn import functional as F

from inversionbench.core.defense import NONE, Client
from inversionbench.core.errors import UserError
from inversionbench.core.protocol import Protocol
from inversionbench.defenses.architecture_enhancement._rank import Layer, deficit, equations, null_vector, rank, recover
from inversionbench.defenses.architecture_enhancement.seccnn import Seccnn, design
from inversionbench.defenses.gradient_perturbation.mixed_quantization import MixedQuantization
from inversionbench.gradients.simulate import simulator
from inversionbench.models.federated import build

NARROW = {"name": "lenet", "channels": 8, "activation": "leaky_relu", "init": "default"}  # 512 outputs, 768 inputs
SHAPE = (3, 16, 16)


def network(strength, model=NARROW, **params):
    return Seccnn(strength, **params).build_model(lambda: build(model, SHAPE, 5, generator())).double()


def first_layer(strength):
    """The first convolution as the recursive attacker meets it: layer, input, output, gradients."""
    model = network(strength)
    x = data().private.images([0]).double()
    a = model.front(x)
    conv = model.body[1] if strength > 1 else model.body[0]
    layer = Layer(conv, max(1, int(strength)))
    out = layer.output(a) + conv.bias.view(-1, 1, 1)
    rest = model.body[2:] if strength > 1 else model.body[1:]
    loss = F.cross_entropy(rest(out), torch.tensor([2]))
    d, gradient = torch.autograd.grad(loss, [out, conv.weight])
    return model, layer, a[0], layer.output(a)[0].detach(), d[0], gradient


def test_plain_layers_are_solved_and_secured_ones_are_not():
    errors = {}
    for strength in (0, 2):
        _, layer, a, z, d, gradient = first_layer(strength)
        assert torch.allclose(layer.weight_gradient(a[None], d)[0], gradient.flatten(), atol=1e-12)
        errors[strength] = float((recover(layer, z, gradient, SHAPE, d) - a).square().mean())
    assert errors[0] < 1e-3
    assert errors[2] > 10 * max(errors[0], 1e-3)


def test_how_many_bits_the_recursive_attacker_needs():
    """The mixture's four bits in the first layer end it; eight bits, told the layer's output exactly, do not."""
    _, layer, a, z, d, gradient = first_layer(0)
    sent = [gradient.float()]
    for table in ("uniform", "fixed"):
        ctx = Client(0, 1, 0, 1, 1, {}, generator())
        sent += MixedQuantization(strength=1, table=table).client_update({"0.weight": sent[0]}, ctx).values()
    full, eight, four = (float((recover(layer, z, g.double(), SHAPE, d) - a).square().mean()) for g in sent)
    assert full < 1e-6
    assert full < eight < 1e-3
    assert four > 10 * 1e-3


def test_the_deficit_is_a_direction_that_nothing_shows():
    model, layer, a, _, d, _ = first_layer(2)
    system = equations(layer, SHAPE, d)
    v = null_vector(system).view(SHAPE)
    assert float((system @ v.flatten()).abs().max()) < 1e-12

    def gradients(x):
        return torch.autograd.grad(F.cross_entropy(model.body(x[None]), torch.tensor([2])), list(model.parameters()))

    moved = [float((g - h).abs().max()) for g, h in zip(gradients(a), gradients(a + 3 * v))]
    assert max(moved) < 1e-10  # the whole update of a very different image


def test_design_counts_free_directions():
    x, y = data().private.images([0]), torch.tensor([2])
    rows = design(build(NARROW, SHAPE, 5, generator()), x, y, (2,))
    assert [(r["factor"], r["mode"], r["deficit"]) for r in rows[:3]] == [
        (1, "nearest", 0), (2, "nearest", 104), (2, "bilinear", 0),  # overlapping weights keep their equations
    ]  # fmt: skip
    _, layer, _, _, d, _ = first_layer(3)
    assert deficit(layer, SHAPE, d) > 104
    wide = design(build({"name": "convnet"}, SHAPE, 5, generator()), x, y, (2,), ("nearest",))
    assert wide[1]["deficit"] == 0  # 2048 outputs of 768 inputs: upsampling hides nothing
    a = torch.eye(4, 6, dtype=torch.float64)
    assert rank(a) == 4


@pytest.mark.parametrize("strength", [2, 3])
def test_maps_parameters_and_work_stay(strength):
    plain, secured = network(0), network(strength)
    x = torch.rand(2, *SHAPE, generator=generator(3)).double()
    assert [p.shape for p in plain.parameters()] == [p.shape for p in secured.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), secured.parameters()))
    assert plain.body[0](x).shape == secured.body[:2](x).shape
    assert secured.body.upsample(x).shape[-1] == strength * 16


def test_the_attackers_passes_know_the_layer():
    model = Seccnn(2.0).build_model(lambda: build({"name": "convnet"}, SHAPE, 5, generator()))
    x, y = torch.randn(2, 1, *SHAPE, generator=generator(1)), torch.eye(5)[[1, 2]][:, None]
    v = torch.randn(2, simulator(model, Protocol()).layout.size, generator=generator(2))
    found = {}
    for form in ("auto", "vmap"):
        client, leaf = simulator(model, Protocol(), form), x.clone().requires_grad_()
        g = client.layout.unflatten(client(leaf, y))
        flat = torch.cat([t.flatten(1) for t in g.values()], dim=1)
        found[form] = flat, torch.autograd.grad((flat * v).sum(), leaf)[0]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found.values()))
    assert simulator(Seccnn(2.0, mode="bilinear").build_model(lambda: build(NARROW, SHAPE, 5, generator())),
                     Protocol()).form == "vmap"  # fmt: skip


def test_a_search_with_an_image_prior_is_not_stopped():
    where = scenario(model=NARROW, subjects=3)
    values = {}
    for defense in (NONE, Seccnn(2.0)):
        made = target(where, defense)
        answer = reconstruct(where, made, "inverting_gradients", defense=defense, steps=200, rate=0.3, tv=0.05)
        values[defense.strength] = psnr(where, made, answer)
    assert values[2.0] > values[0.0] - 4


def test_strength_0_and_wrong_settings():
    where = scenario(subjects=2)
    plain, off = (target(where, d).released["updates"]["client"] for d in (NONE, Seccnn()))
    assert all(torch.equal(plain[n], off[n]) for n in plain)
    with pytest.raises(UserError, match="lenet, convnet"):
        network(2, {"name": "mlp"})
    with pytest.raises(ValueError, match="factor"):
        Seccnn(2.5)
