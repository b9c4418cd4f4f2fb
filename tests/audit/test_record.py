"""What real training leaves in a file is what the self-check computes again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from inversionbench import Audit
from inversionbench.audit.record import flower_mod, recorded
from inversionbench.core.errors import UserError
from inversionbench.models.own import tensors

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1, 2])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def selfcheck(folder: Path, **protocol) -> str:
    """The audit's word on a recorded folder, with the recorded weights and protocol."""
    net = network()
    net.load_state_dict(tensors(folder / "weights.npz", "weights"))
    said = yaml.safe_load("{" + (folder / "protocol.txt").read_text() + "}")
    audit = Audit.of_update(net, tensors(folder / "update.npz", "update"), (X, Y), {**said, **protocol})
    from inversionbench.audit.selfcheck import check

    subject = audit.subject
    return check(subject.net, subject.update, subject.x, subject.y, subject.claim).said


@pytest.mark.parametrize("train", [False, True])
def test_a_loop_of_local_steps_is_recorded_with_its_protocol(tmp_path, train):
    net = network().train(train)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with recorded(net, tmp_path / "round", optimizer):
        for i in (0, 2):
            optimizer.zero_grad()
            F.cross_entropy(net(X[i : i + 2]), Y[i : i + 2]).backward()
            optimizer.step()
        with torch.no_grad():
            net(X)  # an evaluation is no step
    bn = "train_private" if train else "eval_public"
    said = (tmp_path / "round" / "protocol.txt").read_text()
    assert said == f"sends: delta, local_rate: 0.05, bn: {bn}, local_batch: 2"
    assert selfcheck(tmp_path / "round").startswith("matches as declared")


def test_a_gradient_is_recorded(tmp_path):
    net = network().train()
    with recorded(net, tmp_path / "round", sends="gradient"):
        F.cross_entropy(net(X), Y).backward()
    assert selfcheck(tmp_path / "round").startswith("matches as declared")


def test_what_no_protocol_can_say_is_refused_and_nothing_half_written(tmp_path):
    net = network()
    for optimizer, says in (
        (torch.optim.Adam(net.parameters()), "Adam cannot be simulated"),
        (torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), "momentum 0.9"),
        (torch.optim.SGD([{"params": net[0].parameters()}, {"params": net[4].parameters(), "lr": 1.0}], 0.1), "rates"),
    ):
        with pytest.raises(UserError, match=says), recorded(net, tmp_path / "round", optimizer):
            pass
    with pytest.raises(UserError, match="nothing was learnt"), recorded(net, tmp_path / "round"):
        pass
    with pytest.raises(ZeroDivisionError), recorded(net, tmp_path / "round"):
        raise ZeroDivisionError
    F.cross_entropy(net(X), Y).backward()
    with pytest.raises(UserError, match="zero_grad"), recorded(net, tmp_path / "round", sends="gradient"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_flower_client_is_recorded(tmp_path):
    """One round of two clients in Flower's own simulation, where it is installed."""
    pytest.importorskip("flwr", reason="flwr is not installed")
    pytest.importorskip("ray", reason="flwr's simulation is not installed")
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client = ClientApp(mods=[flower_mod(tmp_path)])
    server = ServerApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        net = network().train()
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        F.cross_entropy(net(X), Y).backward()
        optimizer.step()
        content = {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": 4})}
        return Message(content=RecordDict(content), reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=2)
        strategy.start(grid=grid, initial_arrays=ArrayRecord(network().state_dict()), num_rounds=1)

    run_simulation(server, client, num_supernodes=2)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert selfcheck(folder, local_rate=0.1, bn="train_private").startswith("matches as declared")
