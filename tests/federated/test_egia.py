"""EGIA: exact answers from gradients alone, and what an eavesdropper without the weights can still do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inversion_cells import attack, oracle_of, psnr, scenario, truth

from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.gradients.analytic import blend, candidates, row_ratios
from inversionbench.gradients.traffic import integrate, redraw


@pytest.mark.parametrize(
    "model",
    [
        {"name": "mlp", "widths": [16]},
        {"name": "mlp", "widths": [24, 12, 8], "activation": "tanh"},
        {"name": "mlp", "widths": [16], "activation": "sigmoid", "init": "uniform"},
    ],
)
@pytest.mark.parametrize("rounds", [0, 3])
def test_one_image_is_exact_without_weights(model, rounds):
    s = scenario(model, training={"rounds": rounds, "batch": 4}, batch_size=1, labels="hidden")
    found = attack("egia", s, oracle=oracle_of(s, level="GR-U"))
    x, y = truth(s)
    assert (found.data - x).abs().max() < 1e-5
    assert torch.equal(found.labels, y)
    assert found.cost["gradient_evaluations"] == 0


def layer_gradients(images, units, rng, relu):
    """dW, db of a first layer for images (n, d): the activation decides which units an image reaches."""
    n, d = images.shape
    w, b = torch.randn(units, d, generator=rng).double() / d**0.5, 0.1 * torch.randn(units, generator=rng).double()
    delta = torch.randn(n, units, generator=rng).double()
    if relu:
        delta = delta * (images @ w.T + b > 0)
    return delta.T @ images / n, delta.mean(0)


def test_a_weight_difference_is_read_as_a_gradient():
    """Images are ratios and blind to the sign of what was sent; labels are not."""
    s = scenario({"name": "mlp", "widths": [16]}, batch_size=1, labels="hidden", sends="delta", local_rate=0.01)
    found = attack("egia", s, oracle=oracle_of(s, level="GR-U"))
    x, y = truth(s)
    assert (found.data - x).abs().max() < 1e-3
    assert torch.equal(found.labels, y)


def test_the_blend_of_a_batch_is_affine():
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(4, 40, generator=rng).double()
    dw, db = layer_gradients(images, 16, rng, relu=False)
    x = blend(dw, db)
    c, *_ = np.linalg.lstsq(images.T.numpy(), x.numpy(), rcond=None)
    assert np.abs(images.T.numpy() @ c - x.numpy()).max() < 1e-9
    assert c.sum() == pytest.approx(1)


def test_rows_reach_single_images_of_a_batch():
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(4, 40, generator=rng).double().clamp(-2, 2)
    dw, db = layer_gradients(images, 64, rng, relu=True)
    rows = row_ratios(dw, db, 1e-6)
    assert (torch.cdist(images, rows).min(dim=1).values ** 2 / 40 < 1e-7).all()
    found, count = candidates(dw, db, 4, (-2.0, 2.0), 1e-6)
    assert count == 4
    assert torch.cdist(images, found).min(dim=1).values.max() < 1e-6


def test_a_batch_on_a_relu_network():
    s = scenario({"name": "mlp", "widths": [64]}, batch_size=3, labels="hidden")
    assert psnr(s, attack("egia", s, oracle=oracle_of(s, level="GR-U"))) > 30


def test_a_silent_layer_gives_no_image():
    found, count = candidates(torch.zeros(4, 5), torch.zeros(4), 2, (-2.0, 2.0), 1e-6)
    assert count == 0
    assert torch.equal(found, torch.zeros(2, 5).double())


def test_convolutions_have_no_formula():
    with pytest.raises(AccessDenied, match="linear layer"):
        attack("egia", scenario(batch_size=1))


def test_known_weights_are_inverting_gradients():
    s = scenario(batch_size=1, labels="hidden")
    found = attack("egia", s, oracle=oracle_of(s, level="GR-D"), steps=10, route="search", access="GR-D")
    assert torch.equal(found.data, attack("inverting_gradients", s, steps=10).data)


def test_levels_grant_what_was_read_on_the_wire():
    s = scenario(batch_size=1, rounds=3)
    wire = oracle_of(s, level="GR-U")
    with pytest.raises(AccessDenied, match="GR-U grants architecture, initial_model"):
        wire.global_model()
    with pytest.raises(AccessDenied, match="rounds are seen"):
        wire.observe_update(back=3)
    assert not any(t.any() for t in wire.architecture().state_dict().values())
    first, last = oracle_of(s).global_model(2).state_dict(), oracle_of(s).global_model().state_dict()
    for name, t in wire.initial_model().state_dict().items():
        assert torch.equal(t, first[name]), name
        assert not torch.equal(t, last[name]), name
    with pytest.raises(AccessDenied, match="global_model"):
        attack("inverting_gradients", s, oracle=wire, steps=1)
    with pytest.raises(UserError, match="search"):
        attack("egia", s, route="serch")
    with pytest.raises(UserError, match="label_rule: 'ilrg'"):  # reads the weights, which nobody sent
        attack("egia", s, label_rule="ilrg")


def test_uploads_lead_to_the_weights():
    s = scenario(batch_size=1, rounds=3)
    oracle = oracle_of(s)
    true = oracle.global_model()

    def error(clients, factor):
        model = integrate(oracle.global_model(2), oracle, torch.tensor(clients), factor)
        return sum((a - b).square().sum() for a, b in zip(model.parameters(), true.parameters())).sqrt().item()

    everybody = [0, 1, 2, 3]
    assert error(everybody, 1.0) < 1e-6
    assert error(everybody, 1.0) < error([0, 1], 1.0) < error(everybody, 0.0)
    assert error(everybody, 0.5) > 1e-3 < error(everybody, 2.0)


def test_uploads_only():
    s = scenario(batch_size=1, rounds=2, labels="hidden", server_rate=0.3)
    options = {"route": "search", "steps": 60, "oracle": oracle_of(s, level="GR-U")}
    known = psnr(s, attack("egia", s, oracle=oracle_of(s, level="GR-D"), route="search", access="GR-D", steps=60))
    followed = psnr(s, attack("egia", s, **options))
    assert followed == pytest.approx(known, abs=1)
    assert psnr(s, attack("egia", s, rho=0.25, **options)) < followed
    assert psnr(s, attack("egia", s, initial="random", **options)) < followed


def test_weights_of_ones_own_drawing_say_nothing_of_the_server():
    s = scenario({"name": "convnet", "norm": "batch"}, batch_size=1)
    poisoned = oracle_of(s).global_model()
    with torch.no_grad():
        for t in [*poisoned.parameters(), *poisoned.buffers()]:
            t.fill_(7.0)
    own, other = (redraw(m, torch.Generator().manual_seed(1)) for m in (oracle_of(s).global_model(), poisoned))
    for (name, a), b in zip(own.state_dict().items(), other.state_dict().values()):
        assert torch.equal(a, b), name
