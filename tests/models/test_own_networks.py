"""A network of one's own in a scenario: built from code and weights, checked before any job, followed by the plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from inversionbench.core.errors import UserError
from inversionbench.core.protocol import Protocol
from inversionbench.core.provenance import file_digest
from inversionbench.gradients.simulate import simulator
from inversionbench.models import classifiers, federated
from inversionbench.models.base import trace
from inversionbench.models.own import PREFIX
from inversionbench.plan.dag import Plan

CODE = """
from torch import nn

def cnn(width=6):
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(width * 225, 10))
"""
SHAPE = (3, 32, 32)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(CODE)
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(900, 10))
    torch.save(net.state_dict(), "weights.pt")
    return {"name": "own", "import": "net.py:cnn", "arguments": [4], "weights": "weights.pt", "mean": [0.4, 0.5, 0.6],
            "std": [0.2]}  # fmt: skip


def plain(x: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """The user's own network, and what it reads of pixels x."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(900, 10))
    net.load_state_dict(torch.load("weights.pt", weights_only=True))
    return net, (x - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)) / 0.2


def test_a_client_computes_the_gradient_that_the_users_own_loop_computes(model):
    victim = federated.build(model, SHAPE, 10, torch.Generator().manual_seed(0))
    x, y = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 7])
    net, read = plain(x)
    wanted = dict(zip([n for n, _ in net.named_parameters()],
                      torch.autograd.grad(F.cross_entropy(net(read), y), list(net.parameters()))))  # fmt: skip
    client = simulator(victim, Protocol(batch_size=2))
    flat = client(victim.front(x)[None], F.one_hot(y, 10).float()[None])
    for name, found in client.layout.unflatten(flat).items():
        assert torch.allclose(found[0], wanted[name.removeprefix(PREFIX)], rtol=1e-4, atol=1e-6)


def test_a_classifier_is_the_users_own_behind_its_normalisation(model):
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    net, read = plain(x)
    built = classifiers.build(model, SHAPE, 10)
    found = trace(built, x)
    assert torch.allclose(found.logits, net(read), rtol=1e-5, atol=1e-6)
    assert found.features.shape == (2, 900)
    again = classifiers.build({k: v for k, v in model.items() if k != "weights"}, SHAPE, 10)
    again.load_state_dict(built.state_dict())
    assert torch.equal(again(x), built(x))


def parameters(model: dict, track: str = "federated") -> dict:
    return {
        "scale": "own", "datasets": {"photos": {}},
        "scenarios": {"mine": {"track": track, "dataset": "photos", "model": model},
                      "other": {"track": "federated", "dataset": "photos", "model": {"name": "mlp"}}},
        "attacks": {"inverting_gradients": {}},
    }  # fmt: skip


def test_changed_code_or_weights_run_its_cells_again_and_no_others(model):
    def digests() -> list:
        plan = Plan(parameters(model))
        return [(plan.train_target(s, "none"), plan.attack(f"{s}/inverting_gradients/none")) for s in ("mine", "other")]

    before = digests()
    Path("net.py").write_text(CODE + "\n# other")
    code = digests()
    torch.save({n: t + 1 for n, t in torch.load("weights.pt", weights_only=True).items()}, "weights.pt")
    weights = digests()
    assert before[1] == code[1] == weights[1]
    assert len({str(found[0][0]) for found in (before, code, weights)}) == 3
    assert len({str(found[0][1]) for found in (before, code, weights)}) == 3


def test_defenses_made_for_our_own_layers_do_not_meet_it(model):
    raw = parameters(model) | {"defenses": {"dgc": {"strengths": [0.9]}, "soteria": {"strengths": [0.5]}}}
    groups = Plan(raw).groups
    assert "mine/inverting_gradients/dgc" in groups
    assert "mine/inverting_gradients/soteria" not in groups
    assert "other/inverting_gradients/soteria" in groups


def test_import_alone_says_that_it_is_ones_own(model):
    short = {k: v for k, v in model.items() if k != "name"}
    assert Plan(parameters(short)).params.scenarios["mine"].model == model


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"import": "net.py"}, "scenarios.mine.model.import: expected package:factory"),
        ({"import": "gone.py:cnn"}, "no such file: gone.py"),
        ({"import": "no_such_package_here:cnn"}, "cannot be imported"),
        ({"weights": "gone.pt"}, "scenarios.mine.model.weights: no such file"),
        ({"sha256": "0" * 64}, "expected 0000"),
        ({"std": [0.0]}, "above 0"),
        ({"wights": "weights.pt"}, "did you mean 'weights'"),
        ({"import": "", "name": "own"}, "package:factory"),
    ],
)
def test_what_is_wrong_is_said_before_any_job(model, change, says):
    with pytest.raises(UserError, match=says):
        Plan(parameters({**model, **change}))


def test_the_right_digest_passes_and_a_network_without_name_is_refused(model):
    Plan(parameters({**model, "sha256": file_digest("weights.pt")}))
    with pytest.raises(UserError, match="needs a `name`, or `import"):
        Plan(parameters({"weights": "weights.pt"}))


def test_a_network_for_other_classes_says_so(model):
    with pytest.raises(UserError, match=r"expected \(2, 7\) logits"):
        federated.build(model, SHAPE, 7, torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=r"net\.py:cnn"):
        classifiers.build({**model, "arguments": [4, 5]}, SHAPE, 10)
