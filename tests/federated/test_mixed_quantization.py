"""Mixed quantisation: exact bounds of the quantisers, real bytes, and what it protects from."""

import numpy as np
import pytest
import torch
from federated_cells import generator, psnr, reconstruct, scenario, target

from inversionbench.core.defense import NONE, Client
from inversionbench.defenses.gradient_perturbation import _quantisers as q
from inversionbench.defenses.gradient_perturbation.mixed_quantization import MixedQuantization

SHAPES = {"c1": (8, 3, 3, 3), "c1b": (8,), "c2": (8, 8, 3, 3), "c2b": (8,), "l1": (20, 72), "l1b": (20,),
          "l2": (5, 20), "l2b": (5,)}  # fmt: skip


def update(seed=0):
    rng = generator(seed)
    return {n: torch.randn(s, generator=rng) for n, s in SHAPES.items()}


def client(round=0, state=None):
    return Client(round, 10, 0, 4, 8, update(9), generator(round), {} if state is None else state)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_packing(bits):
    values = torch.randint(0, 2**bits, (101,), generator=generator()).numpy()
    raw = q.pack(values, bits)
    assert len(raw) == q.packed_size(101, bits) == -(-101 * bits // 8)
    assert np.array_equal(q.unpack(raw, 101, bits), values)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_errors_stay_within_a_step(bits):
    x = torch.randn(1000, generator=generator())
    for rng, bound in ((None, 0.5), (generator(1), 1.0)):
        values, scales = q.affine(x[None], bits, rng)
        assert float((q.affine_back(values, scales) - x).abs().max()) <= bound * float(scales[0, 0]) * 1.001
        rows, steps = q.symmetric(x.view(10, 100), bits, rng)
        error = (q.symmetric_back(rows, steps, bits) - x.view(10, 100)).abs().amax(1)
        assert bool((error <= bound * steps * 1.001).all())
        assert int(values.max()) < 2**bits
        assert int(rows.min()) >= 0


def test_stochastic_rounding_is_unbiased():
    x = torch.tensor([[0.1, -0.33, 0.77, 1.0]])
    rng, total = generator(), torch.zeros(1, 4)
    for _ in range(10_000):
        total += q.symmetric_back(*q.symmetric(x, 2, rng), 2)
    assert torch.allclose(total / 10_000, x, atol=0.02)
    assert not torch.allclose(q.symmetric_back(*q.symmetric(x, 2, None), 2), x, atol=0.05)  # the nearest is not


def test_empty_layers_stay_empty():
    zero = {n: torch.zeros(s) for n, s in SHAPES.items()}
    for strength in (1, 2, 3):
        sent = MixedQuantization(strength=strength).client_update(zero, client())
        assert all(not bool(t.any()) for t in sent.values())


def test_layers_differ_in_precision_and_mode():
    table = MixedQuantization(strength=1)
    kinds = table.kinds(SHAPES, 0)
    assert [kinds[n] for n in ("c1", "c2", "l1", "l2", "l1b")] == ["first", "convolution", "linear", "last", "bias"]
    sent = table.client_update(update(), client())
    assert len(sent["c1"].unique()) <= 15  # 4 bits, symmetric: 15 levels
    assert 100 < len(sent["c2"].unique()) <= 256
    assert all(len(row.unique()) <= 255 for row in sent["l1"])
    assert len(sent["l1"].unique()) > 300  # a step of its own for every output
    assert torch.equal(sent["l2"], update()["l2"].half().float())


def test_random_tables_change_with_the_round_and_are_public():
    table = MixedQuantization(strength=1, table="random")
    rounds = [table.kinds(SHAPES, t) for t in range(6)]
    assert len({str(r) for r in rounds}) > 1
    assert all(sorted(r.values()) == sorted(rounds[0].values()) for r in rounds)
    assert table.client_update(update(), client(3))["c1"].shape == (8, 3, 3, 3)


def test_what_travels_is_small():
    sizes = []
    for strength in (1, 2, 3):
        defense = MixedQuantization(strength=strength)
        sent = defense.client_update(update(), client())
        sizes.append(defense.bytes_sent(sent))
        assert sizes[-1] == defense.bytes_sent(update())  # by formula, from the shapes alone
        assert set(map(type, sent.values())) == {torch.Tensor}
    by_hand = 216 * 4 // 8 + 4 + 576 + 8 + 1440 + 80 + 200 + 2 * (8 + 8 + 20 + 5)
    assert sizes[0] == by_hand
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] < 0.1 * NONE.bytes_sent(update())


def test_more_strength_loses_more():
    g = update()
    cosines = []
    for strength in (1, 2, 3):
        sent = MixedQuantization(strength=strength).client_update(g, client())
        flat = [torch.cat([t.flatten() for t in u.values()]) for u in (g, sent)]
        cosines.append(float(torch.cosine_similarity(*flat, dim=0)))
    assert cosines[0] > 0.99 > cosines[1] > cosines[2]


def test_the_error_is_fed_back():
    state, sums = {}, torch.zeros(20, 72)
    defense = MixedQuantization(strength=3, feedback=True, rounding="nearest")
    for t in range(30):
        sums += defense.client_update(update(0), client(t, state))["l1"] / 30
    alone = MixedQuantization(strength=3, rounding="nearest").client_update(update(0), client())["l1"]
    want = update(0)["l1"]
    assert float((sums - want).norm()) < 0.2 * float((alone - want).norm())


@pytest.mark.parametrize("table", ["fixed", "random", "uniform"])
@pytest.mark.parametrize("strength", [1, 2, 4])
def test_who_knows_the_table_reads_as_the_server_does(table, strength):
    """Many updates at once, without bytes: the same values as on the wire."""
    defense = MixedQuantization(strength=strength, table=table, rounding="nearest", outliers=0.05)
    updates, ctx = [update(s) for s in range(3)], client(2)
    sent = [defense.client_update(u, ctx) for u in updates]
    kinds = ctx.state["public"]["kinds"]
    read = defense.read({n: torch.stack([u[n] for u in updates]) for n in SHAPES}, kinds, generator())
    assert all(torch.allclose(read[n], torch.stack([s[n] for s in sent]), atol=1e-6) for n in SHAPES)


def test_an_outlier_sets_the_step():
    g = update()
    g["l1"][0, 0] = 1e3
    defense = MixedQuantization(strength=2, rounding="nearest")
    plain = defense.client_update(g, client())["l1"]
    clipped = MixedQuantization(strength=2, rounding="nearest", outliers=0.01).client_update(g, client())["l1"]
    assert float((plain - g["l1"])[0, 1:].norm()) > 2 * float((clipped - g["l1"])[0, 1:].norm())


@pytest.mark.parametrize("wrong", [{"strength": 1.5}, {"strength": 1, "table": "mixed"}, {"rounding": "up"}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="mixed_quantization"):
        MixedQuantization(**wrong)


def test_attacks_on_quantised_updates():
    """The card's table hides nothing; three halvings do."""
    values = []
    for strength in (0, 1, 4):
        made = target(scenario(subjects=2), MixedQuantization(strength=strength))
        values.append(psnr(scenario(), made, reconstruct(scenario(), made, "inverting_gradients", steps=150)))
    assert abs(values[1] - values[0]) < 1.5
    assert values[2] < values[0] - 2
