"""The client's path: hooks in their places, protocols, batch norm modes, and an attacker who simulates it."""

import subprocess
import sys

import pytest
import torch
from federated_cells import CONVNET, LENET, TRACK, data, generator, oracle, scenario, target, through_a_file
from torch.nn import functional as F

from inversionbench.core.defense import NONE, Client, Defense
from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.core.protocol import Protocol
from inversionbench.federation.client import local_update, observe, send
from inversionbench.models.federated import build

RESNET = {"name": "resnet8", "width": 4}


class Recorder(Defense):
    """Writes down which hook is called when, and leaves a mark in each."""

    hooks = frozenset({"train_transform", "loss", "gradient", "client_update", "aggregate"})

    def train_transform(self, x, y, rng, step):
        LOG.append(f"H2/{step}/{len(x)}")
        return x, y

    def loss(self, ctx):
        LOG.append(f"H4/{ctx.step}/{ctx.epoch}")
        return super().loss(ctx)

    def gradient(self, gradients, ctx):
        LOG.append(f"H5/{ctx.step}")
        return gradients

    def client_update(self, update, ctx):
        LOG.append("H6")
        return {n: 2 * t for n, t in update.items()}

    def aggregate(self, payloads, weights):
        LOG.append("H7")
        return super().aggregate(payloads, weights)


LOG: list[str] = []


def client(model, n=2, state=None):
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return Client(0, 1, 0, 2, n, parameters, generator(), state if state is not None else {})


def batch(n=2):
    return data().private.images(slice(0, n)), data().private.labels(slice(0, n))


def model(net=CONVNET, seed=0):
    return build(net, data().shape, data().classes, generator(seed))


def test_hooks_act_in_order():
    LOG.clear()
    agreed = Protocol(sends="delta", batch_size=3, local_batch=2, epochs=2)
    x, y = batch(3)
    sent = send(model(), x, y, agreed, Recorder(), client(model(), 3), 10)
    mean, view = observe(Recorder(), [sent, sent], [1.0, 1.0])
    steps = [f"H2/{s}/{n} H4/{s}/{s // 2} H5/{s}" for s, n in enumerate((2, 1, 2, 1))]
    assert [*" ".join(steps).split(), "H6", "H7"] == LOG
    assert all(torch.equal(sent.payload[n], 2 * t) for n, t in sent.update.items())
    assert all(view[n].shape == (2, *t.shape) and torch.allclose(mean[n], t) for n, t in sent.payload.items())


def test_fedsgd_sends_the_gradient():
    net, (x, y) = model(), batch()
    update, _, _ = local_update(net, x, y, Protocol(batch_size=2), NONE, 10, generator())
    plain = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    assert all(torch.equal(u, p) for u, p in zip(update.values(), plain))


def test_one_step_of_fedavg_is_fedsgd():
    net, (x, y) = model(), batch()
    gradient, _, _ = local_update(net, x, y, Protocol(batch_size=2), NONE, 10, generator())
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    one = Protocol(sends="delta", batch_size=2, local_rate=0.5)
    delta, _, _ = local_update(net, x, y, one, NONE, 10, generator())
    assert all(torch.allclose(delta[n], -0.5 * g, atol=1e-6) for n, g in gradient.items())
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())  # the model is left as it was


def test_fedavg_is_plain_sgd_in_order():
    net, (x, y) = model(), batch(3)
    agreed = Protocol(sends="delta", batch_size=3, local_batch=1, epochs=2, local_rate=0.1)
    delta, _, _ = local_update(net, x, y, agreed, NONE, 10, generator())
    twin = model()
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    for i in (0, 1, 2, 0, 1, 2):
        optimiser.zero_grad()
        F.cross_entropy(twin(x[i : i + 1]), y[i : i + 1]).backward()
        optimiser.step()
    for (name, after), before in zip(twin.named_parameters(), net.parameters()):
        assert torch.allclose(delta[name], after.detach() - before.detach(), atol=1e-6)


@pytest.mark.parametrize(
    ("net", "protocol"),
    [
        (LENET, {"batch_size": 1}),
        (CONVNET, {"batch_size": 3}),
        (CONVNET, {"batch_size": 2, "sends": "delta", "local_batch": 1, "epochs": 2, "local_rate": 0.1}),
        (RESNET, {"batch_size": 2}),
        (RESNET, {"batch_size": 2, "bn": "train_private"}),
        (RESNET, {"batch_size": 2, "bn": "train_shared"}),
        ({"name": "vit", "width": 8, "heads": 2}, {"batch_size": 2}),
    ],
    ids=["sigmoid", "batch", "FedAvg", "public bn", "private bn", "shared bn", "vit"],
)
def test_the_matching_loss_at_the_truth_is_zero(net, protocol):
    checks = target(scenario(net, subjects=2, **protocol)).truth["checks"]
    assert max(map(abs, checks["match_at_truth_undefended"])) < 2e-6
    assert max(map(abs, checks["match_at_truth"])) < 2e-6
    assert min(checks["cos_sent_true"]) > 1 - 1e-6


def test_a_wrong_simulation_is_noticed():
    """Running statistics instead of the client's own: the check must not be zero."""
    made = target(scenario(RESNET, subjects=2, batch_size=2, bn="train_private"))
    from inversionbench.federation.client import Sent
    from inversionbench.tracks.federated.self_check import self_check

    net = model(RESNET)
    net.load_state_dict(made.released["state"])
    index = made.truth["index"]
    view = made.released["updates"]["client"]
    sent = [
        Sent({n: t[i] for n, t in view.items()}, {}, 0, data().private.images(row.numpy()), made.truth["labels"][i])
        for i, row in enumerate(index)
    ]
    wrong = self_check(net, Protocol(batch_size=2), sent, view, made.truth["labels"])
    assert min(wrong["match_at_truth"]) > 1e-3


def test_running_statistics_stay_and_shared_ones_are_sent():
    where = scenario(RESNET, subjects=2, batch_size=2, bn="train_shared")
    made = target(where)
    assert float(made.released["state"]["body.1.running_mean"].abs().max()) == 0  # untouched by the clients
    told = oracle(where, through_a_file_target(made)).protocol()["statistics"]
    first = model(RESNET).body[0]
    index = made.truth["index"]
    net = model(RESNET)
    net.load_state_dict(made.released["state"])
    x = net.front(data().private.images(index[1].numpy()))
    first.load_state_dict(net.body[0].state_dict())
    seen = first(x)
    assert torch.allclose(told[0][0][1], seen.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(told[0][1][1], seen.var((0, 2, 3), unbiased=False), atol=1e-5)
    assert "statistics" not in oracle(scenario(RESNET, subjects=2), target(scenario(RESNET, subjects=2))).protocol()


def through_a_file_target(made):
    made.released = through_a_file(made.released)
    return made


def test_the_oracle_gives_copies_and_nothing_else():
    where = scenario(subjects=2)
    made = target(where)
    gr = oracle(where, made)
    gr.observe_update()["body.0.weight"].zero_()
    gr.global_model().body[0].weight.data.zero_()
    assert float(gr.observe_update()["body.0.weight"].abs().max()) > 0
    assert float(gr.global_model().body[0].weight.abs().max()) > 0
    assert gr.ledger.queries == 4  # two clients, read twice
    for call in ("module", "scores", "labels", "truth"):
        with pytest.raises(AccessDenied):
            getattr(gr, call)
    with pytest.raises(ValueError, match="decoy"):
        gr.observe_update("everything")
    assert not any(p.requires_grad for p in gr.global_model().parameters())


def test_decoys_show_other_classes_under_the_same_labels():
    made = target(scenario(subjects=6, batch_size=2))
    truth = data().private.labels()
    for row, decoy in zip(made.truth["index"], made.truth["decoy_index"]):
        assert not set(truth[row].tolist()) & set(truth[decoy].tolist())
    used = torch.cat([made.truth["index"].flatten(), made.truth["decoy_index"].flatten()])
    assert len(used.unique()) == len(used)


def test_hidden_labels_are_not_released():
    made = target(scenario(subjects=2, labels="hidden"))
    assert "labels" not in made.released
    assert "labels" in target(scenario(subjects=2)).released


def test_distinct_labels():
    made = target(scenario(subjects=3, batch_size=8, classes="distinct"))
    assert all(len(row.unique()) == 8 for row in made.truth["labels"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "lenett"}}, "did you mean 'lenet'"),
        ({"model": {"name": "lenet", "activation": "reluu"}}, "did you mean 'relu'"),
        ({"model": {"name": "convnet", "widths": 8}}, "a list that is not empty"),
        ({"protocol": {"batchsize": 1}}, "did you mean 'batch_size'"),
        ({"protocol": {"bn": "train"}}, "train_private"),
        ({"protocol": {"batch_size": 0}}, "at least 1"),
        ({"protocol": {"batch_size": 4, "local_batch": 1}}, "sends: delta"),
        ({"protocol": {"sends": "delta", "local_rate": 0}}, "local_rate: 0 moves no weight"),
        ({"training": {"round": 3}}, "did you mean 'rounds'"),
        ({"training": {"clients": 0}}, "at least 1"),
    ],
)
def test_scenarios_are_checked(change, message):
    from dataclasses import replace

    with pytest.raises(UserError, match=message):
        TRACK.check(replace(scenario(), **change))


def test_checking_needs_no_torch():
    code = (
        "import sys; from inversionbench.core.scenario import Scenario;"
        "from inversionbench.tracks import get_track;"
        "get_track('federated').check(Scenario('s', 'federated', 'photos', {'name': 'lenet'}, {}, {'batch_size': 2}));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_too_many_subjects():
    with pytest.raises(UserError, match="private images"):
        target(scenario(subjects=200))
