"""AGIC: the combined batch, the layer weights, several rounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from inversion_cells import attack, oracle_of, psnr, scenario, target, truth
from torch.utils.flop_counter import FlopCounterMode

from inversionbench.core.errors import UserError
from inversionbench.gradients.layerwise import depth_weights
from inversionbench.gradients.layout import layout_of
from inversionbench.gradients.objectives import Matching
from inversionbench.gradients.problem import read
from inversionbench.gradients.simulate import simulator


def errors_at_truth(rate, epochs=2):
    """Cosine distance of what was sent and the combined gradient at the true images, per client."""
    s = scenario("lenet", 2, sends="delta", batch_size=2, local_batch=1, epochs=epochs, local_rate=rate)
    problem = read(oracle_of(s))
    x, y = truth(s)
    client = simulator(problem.model, replace(problem.protocol, sends="gradient", epochs=1, local_batch=0))
    own = client(problem.model.front(x), problem.one_hot(y))
    return 1 - torch.cosine_similarity(own.double(), client.layout.flatten(problem.update).double(), dim=1)


def test_the_approximation_is_exact_only_in_the_limit():
    """The error falls with the square of the rate: by 80 (44 to 141 over seeds) for a tenth of it, from about 1e-2 to
    1e-4 (2e-5 to 4e-4). An attack that was handed the true gradient would see rounding at both rates."""
    small, large = (errors_at_truth(rate) for rate in (1e-3, 1e-2))
    assert (small < 2e-3).all()
    assert (large > 10 * small).all()


def test_layer_weights_grow_with_depth_and_bias_goes_with_its_layer():
    layout = layout_of({"a.weight": (2, 3), "a.bias": (2,), "b.weight": (4,), "c.weight": (5,), "c.bias": (1,)})
    linear = depth_weights(layout, "linear")
    assert linear.tolist() == pytest.approx([0.5] * 8 + [1.0] * 4 + [1.5] * 6)
    steep = depth_weights(layout, "exponential")
    assert steep[0] == steep[7] < steep[8] < steep[12] == steep[17]
    assert steep[-1] / steep[0] == pytest.approx(torch.tensor(2.0).exp().item())
    with pytest.raises(UserError, match="linear"):
        depth_weights(layout, "linaer")


def test_the_weighted_cosine_is_the_one_of_the_card():
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 18, generator=rng), torch.randn(2, 18, generator=rng)
    layout = layout_of({"a.weight": (2, 3), "a.bias": (2,), "b.weight": (4,), "c.weight": (6,)})
    w = depth_weights(layout, "linear")
    plain = 1 - (w * a * b).sum(1) / ((w * a * a).sum(1) * (w * b * b).sum(1)).sqrt()
    torch.testing.assert_close(Matching(b, mask=w.sqrt()[None].expand_as(b))(a), plain)


def test_flat_weights_and_one_round_of_fedsgd_are_inverting_gradients():
    s = scenario(batch_size=2, subjects=2)
    agic = attack("agic", s, steps=10, weights="flat")
    plain = attack("inverting_gradients", s, steps=10)
    torch.testing.assert_close(agic.data, plain.data, atol=1e-3, rtol=0)


def test_cost_does_not_depend_on_the_local_steps():
    s = scenario("lenet", 2, sends="delta", batch_size=1, epochs=8, local_rate=1e-3)
    agic, plain = attack("agic", s, steps=2), attack("inverting_gradients", s, steps=2)
    assert plain.cost["gradient_evaluations"] == 8 * agic.cost["gradient_evaluations"]

    problem = read(oracle_of(s))
    x = torch.zeros(problem.shape).requires_grad_()
    y = problem.one_hot(truth(s)[1])

    def multiplications(protocol):
        with FlopCounterMode(display=False) as counter:
            simulator(problem.model, protocol)(x, y).sum().backward()
        return counter.get_total_flops()

    combined = replace(problem.protocol, sends="gradient", epochs=1)
    assert multiplications(problem.protocol) > 7 * multiplications(combined)


def test_rounds_share_one_batch_and_all_count():
    s = scenario(batch_size=2, subjects=2, rounds=3)
    assert len(target(s).released["earlier"]) == 2
    weights = [oracle_of(s).global_model(back).head.weight for back in (0, 1, 2)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    found = attack("agic", s, steps=4)
    assert found.notes["rounds"] == 3
    assert found.cost["gradient_evaluations"] == 3 * 4 * 2
    assert attack("agic", s, steps=4, rounds=1).cost["gradient_evaluations"] == 4 * 2


def test_several_rounds_beat_one_where_the_weights_move():
    """At equal iterations. A server that hardly moves (the rate of 0.1 above) sends the same gradient again."""
    s = scenario(batch_size=2, subjects=4, rounds=3, server_rate=5.0)
    assert psnr(s, attack("agic", s, steps=80)) > psnr(s, attack("agic", s, steps=80, rounds=1)) + 1
