"""An active server: images out of a sum, what hides them from it, and what a client can see of its weights."""

from __future__ import annotations

import pytest
import torch
from federated_cells import TRACK, data, evaluate, knowledge, price, scenario, target

from inversionbench.core import registry
from inversionbench.core.defense import NONE
from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.defenses.cryptographic_encryption.cahe import Cahe
from inversionbench.defenses.cryptographic_encryption.secure_aggregation import SecureAggregation
from inversionbench.defenses.protocol.weight_screening import WeightScreening, suspicion
from inversionbench.gradients.imprint import differences, plant

MLP = {"name": "mlp", "widths": [96, 24]}


def cell(bins=96, subjects=2, batch=2, **protocol):
    return scenario({**MLP, "widths": [max(96, bins), 24]}, subjects, batch_size=batch, planted=bins, **protocol)


def done(where, defense=NONE, seed=0, **params):
    """(evaluation, reconstruction) of `imprint`."""
    made = target(where, defense, seed)
    oracle = TRACK.oracle(where, made.released, None, "GR-A", defense, 0)
    method = registry.get("attack", "imprint")(**params)
    answer = method.run(oracle, knowledge(where, made), torch.Generator().manual_seed(0))
    return evaluate(where, made, answer), answer


def test_bins_hold_single_images():
    """By hand: images of known means, in bins of their own, come out of one summed gradient."""
    where = cell(subjects=1)
    model = plant(honest_model(where), data().public.images(), 96, 0.0, torch.Generator().manual_seed(0))
    x = data().private.images()[:4]
    x = x - x.mean((1, 2, 3), keepdim=True) + torch.tensor([0.2, 0.35, 0.5, 0.65]).view(-1, 1, 1, 1)
    loss = torch.nn.functional.cross_entropy(model.body(x), torch.tensor([0, 1, 2, 1]))
    first = list(model.parameters())[:2]
    dw, db = differences(*torch.autograd.grad(loss, first), 96)
    found = dw[db.abs() > 1e-3 * db.abs().max()] / db[db.abs() > 1e-3 * db.abs().max()][:, None]
    assert len(found) == 4
    assert torch.cdist(x.flatten(1).double(), found).min(1).values.max() < 1e-3


def honest_model(where):
    made = target(where)
    model = TRACK.oracle(where, made.released, None, "GR", NONE, 0).global_model()
    return model.requires_grad_(True)


def test_a_sum_of_clients_hides_no_images():
    """Eight images behind one masked sum: all above 30 dB with 400 bins, in three seeds; with 4 bins, and of the mean
    public image, none."""
    defense = SecureAggregation(strength=4)
    many, few = cell(400, subjects=4, batch=2), cell(4, subjects=4, batch=2)
    result, answer = done(many, defense)
    assert result.metrics["success_30"].mean() > 0.6
    assert done(few, defense)[0].metrics["success_30"].mean() < 0.4
    assert answer.notes["clients_in_sum"] == 4
    assert result.controls["mean_image"]["success_30"].max() == 0


def test_the_mean_of_a_round_is_enough():
    """Ciphertexts say nothing (no image above 30 dB), the mean that the next model tells gives all four."""
    defense, where = Cahe(strength=1, clients=4, dimension=64, slots=64, identity=4), cell(400, subjects=4, batch=1)
    assert done(where, defense)[0].metrics["success_30"].max() == 0
    assert done(where, defense, read="mean")[0].metrics["success_30"].mean() > 0.7


def test_the_level_and_the_scenario_are_asked_for():
    where = cell()
    honest = scenario(MLP, 2, batch_size=2)
    with pytest.raises(AccessDenied, match="GR grants"):
        TRACK.oracle(where, target(where).released, None, "GR", NONE, 0).planted_update()
    with pytest.raises(AccessDenied, match="plants no plain weights"):
        TRACK.oracle(honest, target(honest).released, None, "GR-A", NONE, 0).planted_model()
    method = registry.describe("attack", "imprint")
    assert TRACK.accepts(where, method)
    assert not TRACK.accepts(honest, method)
    for wrong, said in (
        (scenario(planted=8), "planted in an 'mlp'"),
        (scenario({**MLP, "widths": [4, 4]}, planted=8), "8 bins need"),
        (scenario(MLP, planted=8, sends="delta", batch_size=2, local_batch=1), "one step"),
    ):
        with pytest.raises(UserError, match=said):
            TRACK.check(wrong)


def test_honest_rounds_are_the_same_beside_an_active_server():
    active, honest = target(cell()), target(scenario(MLP, 2, batch_size=2))
    for name, seen in honest.released["updates"]["client"].items():
        assert torch.equal(seen, active.released["updates"]["client"][name])


def test_clients_see_parallel_rows():
    """Parallel rows: 1 where weights are planted, 0.39 in the untrained network; with a disguise of 3 0.50."""
    where = cell(subjects=1)
    model = honest_model(where)
    rng, public = torch.Generator().manual_seed(0), data().public.images()
    value = lambda m: suspicion(dict(m.named_parameters()))
    honest = value(model)
    plain, hidden = (value(plant(model, public, 96, size, rng)) for size in (0.0, 3.0))
    assert plain > 0.99
    assert honest < 0.6
    assert hidden < 0.65
    frozen = {n: p.clone() for n, p in model.named_parameters()}
    scaled = {n: 3 * p for n, p in frozen.items()}
    assert suspicion(scaled) == pytest.approx(suspicion(frozen))


def test_screening_stops_the_plain_plant_and_not_the_disguised_one():
    """Refused: all clients, none. Images above 30 dB without defense, screened, screened and disguised: 1, 0, 1 in
    three seeds."""
    where, defense = cell(400, subjects=4, disguise=3.0), WeightScreening(strength=0.3)
    cases = ((NONE, False), (defense, False), (defense, True))
    free, stopped, through = (done(where, d, disguised=hidden)[0].metrics["success_30"].mean() for d, hidden in cases)
    assert free > 0.6
    assert stopped == 0
    assert through > 0.4
    said = target(where, defense).utility
    assert (said["refused_plain"], said["refused_disguised"]) == (1, 0)
    assert said["refused"] == 0  # the honest round


def test_false_alarms_stand_in_the_price():
    """Of two rounds of four clients: at 0.3 none is refused, at 0.95 every one, and nothing is learnt."""
    where = scenario(MLP, 1, training={"utility_rounds": 2, "clients": 4, "batch": 2})
    assert price(where, WeightScreening(strength=0.3))[0]["refused"] == 0
    assert price(where, WeightScreening(strength=0.95))[0]["refused"] == 1
    assert "refused" not in price(where)[0]
