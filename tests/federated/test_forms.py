"""Every batched form of the client's simulation equals the plain loop, in value and in gradient."""

import pytest
import torch
from federated_cells import generator

from inversionbench.core.protocol import Protocol
from inversionbench.gradients.explicit import Unsupported
from inversionbench.gradients.simulate import memory, simulator
from inversionbench.models.federated import build

SHAPE = (3, 12, 12)
NETS = [
    *({"name": "lenet", "activation": a, "channels": 4} for a in ("sigmoid", "relu", "tanh", "silu", "leaky_relu")),
    {"name": "convnet", "widths": [4, 8]},
    {"name": "convnet", "widths": [4, 8], "norm": "batch"},
    {"name": "resnet8", "width": 2},
    {"name": "resnet8", "width": 2, "norm": "none"},
]
STEPS = [
    {"batch_size": 1},
    {"batch_size": 3},
    {"batch_size": 2, "sends": "delta", "local_batch": 1, "epochs": 2, "local_rate": 0.2},
]


def setting(net, bn="eval_public", **protocol):
    """Model, protocol, dummy images (3 trials), label logits, all in float64 and with lively statistics."""
    model = build(net, SHAPE, 5, generator()).double()
    for norm in model.batch_norms():
        norm.running_mean.normal_(generator=generator(1))
        norm.running_var.uniform_(0.5, 2, generator=generator(2))
    agreed = Protocol(bn=bn, **protocol)
    x = torch.randn(3, agreed.batch_size, *SHAPE, dtype=torch.float64, generator=generator(3))
    u = torch.randn(3, agreed.batch_size, 5, dtype=torch.float64, generator=generator(4))
    return model.bn_mode(bn), agreed, x.requires_grad_(), u.requires_grad_()


def everything(client, x, u):
    """The update in parameter order, and the gradients of a curved function of it at images and labels."""
    update = client(x, u.softmax(2))
    ordered = torch.cat([t.flatten(1) for t in client.layout.unflatten(update).values()], dim=1)
    weight = torch.linspace(-1, 1, ordered.shape[1], dtype=ordered.dtype)
    value = (ordered * weight + 0.1 * ordered.square()).sum()
    return ordered.detach(), *torch.autograd.grad(value, [x, u])


def close(a, b):
    return all(float((p - q).abs().max()) <= 1e-10 * float(q.abs().max()) for p, q in zip(a, b))


@pytest.mark.parametrize("protocol", STEPS, ids=["one image", "batch", "local steps"])
@pytest.mark.parametrize("net", NETS, ids=lambda n: "-".join(str(v) for v in n.values()))
def test_forms_equal_the_loop(net, protocol):
    model, agreed, x, u = setting(net, **protocol)
    plain = everything(simulator(model, agreed, "loop"), x, u)
    for form in ("im2col", "grouped", "auto", "vmap"):
        assert close(everything(simulator(model, agreed, form), x, u), plain), form


def test_batch_statistics_and_transformers_run_by_vmap():
    vit = {"name": "vit", "width": 8, "heads": 2}
    for net, bn in (({"name": "resnet8", "width": 2}, "train_private"), (vit, "eval_public")):
        model, agreed, x, u = setting(net, bn=bn, batch_size=2)
        client = simulator(model, agreed, "auto")
        assert client.form == "vmap"
        assert close(everything(client, x, u), everything(simulator(model, agreed, "loop"), x, u))
        with pytest.raises(Unsupported):
            simulator(model, agreed, "im2col")


def test_trials_do_not_interact():
    model, agreed, x, u = setting(NETS[5], batch_size=2)
    client = simulator(model, agreed)
    together = client(x, u.softmax(2))
    for k in range(3):
        alone = client(x[k : k + 1], u[k : k + 1].softmax(2))
        assert torch.allclose(together[k], alone[0], rtol=1e-12, atol=1e-14)


def test_odd_sizes():
    """Strides that do not divide the image, as LeNet on 28 x 28 (28, 14, 7) and 15 x 15 (15, 8, 4)."""
    for side in (28, 15):
        model = build({"name": "lenet", "channels": 3}, (1, side, side), 5, generator()).double()
        x = torch.randn(2, 1, 1, side, side, dtype=torch.float64, generator=generator(1)).requires_grad_()
        u = torch.randn(2, 1, 5, dtype=torch.float64, generator=generator(2)).requires_grad_()
        parts = [everything(simulator(model, Protocol(), form), x, u) for form in ("loop", "im2col", "grouped")]
        assert close(parts[1], parts[0])
        assert close(parts[2], parts[0])


def test_a_pass_can_be_pulled_back_twice():
    model, agreed, x, u = setting(NETS[0], batch_size=1)
    update = simulator(model, agreed)(x, u.softmax(2))
    first = torch.autograd.grad(update.sum(), x, retain_graph=True)[0]
    torch.autograd.grad(update.square().sum(), x, retain_graph=True)
    assert torch.equal(torch.autograd.grad(update.sum(), x)[0], first)


def test_memory_grows_with_the_batch():
    model = build(NETS[5], SHAPE, 5, generator())
    assert memory(model, 8) > 4 * memory(model, 1) > 0
