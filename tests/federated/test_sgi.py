"""SGI: counts of labels, stages, masks, the quantised step."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from inversion_cells import attack, oracle_of, scenario, truth

from inversionbench.core.errors import AccessDenied
from inversionbench.gradients.evolution import evolve, fitness, mutate, rescale, stable_ranks
from inversionbench.gradients.layerwise import first_active, stage_starts
from inversionbench.gradients.layout import layout_of
from inversionbench.gradients.problem import read, recovered
from inversionbench.metrics.label_recovery import label_recovery
from inversionbench.tracks.federated.attacks.sgi import quantised

RESNET = {"name": "resnet8", "norm": "none", "width": 8}


def test_everything_switched_off_is_inverting_gradients():
    s = scenario(batch_size=2, subjects=2)
    off = attack("sgi", s, steps=12, first=0.0, last=0.0, keep=1.0, step="sign", tv=0.01, tv_start=0.0)
    plain = attack("inverting_gradients", s, steps=12)
    assert torch.equal(off.data, plain.data)
    assert not torch.equal(attack("sgi", s, steps=12).data, plain.data)


def compositions(total, parts):
    for cuts in combinations(range(1, total), parts - 1):
        yield [b - a for a, b in zip((0, *cuts), (*cuts, total))]


def test_evolution_finds_what_enumeration_finds():
    rng = torch.Generator().manual_seed(0)
    ranks = stable_ranks(torch.rand(40, 32, generator=rng), 8)
    every = torch.tensor(list(compositions(12, 4)))
    for counts in ([1, 1, 1, 9], [3, 3, 3, 3], [2, 6, 1, 3]):
        noisy = torch.tensor(counts).double()[:, None] / 12 * ranks.mean * (1 + 0.05 * torch.randn(4, 8, generator=rng))
        best = fitness(every, noisy, ranks)
        found = evolve(noisy, ranks, 12, rng)
        assert fitness(found[None], noisy, ranks)[0] >= 0.999 * best.max()
        assert found.tolist() == every[best.argmax()].tolist()


def test_children_stay_compositions():
    rng = torch.Generator().manual_seed(0)
    counts = rescale(torch.randint(1, 9, (50, 5), generator=rng), 8)
    for n in (counts, mutate(counts, rng)):
        assert (n.sum(1) == 8).all()
        assert (n >= 1).all()
    assert (mutate(counts, rng) - counts).abs().sum(1).tolist() == [2] * 50


def test_ranks_are_the_steady_ones_and_never_dead():
    rng = torch.Generator().manual_seed(0)
    features = torch.rand(30, 10, generator=rng) * torch.rand(30, 1, generator=rng)
    features[:, :4] = 0
    features[:, 9] = 5.0
    ranks = stable_ranks(features, 20)
    assert ranks.index[0] == 9
    assert len(ranks.index) == 6
    assert torch.isfinite(ranks.mean).all()


def test_labels_with_repeats_beat_the_smallest_entries():
    s = scenario(RESNET, 6, batch_size=6, labels="hidden")
    found = attack("sgi", s, steps=1)
    assert found.notes["labels"] == "evolution"
    y = truth(s)[1]
    distinct = recovered(read(oracle_of(s)), "min_row", torch.Generator())

    def overlap(rows):
        return sum(label_recovery(a, b, 10).overlap for a, b in zip(rows, y)) / len(y)

    ceiling = sum(len(row.unique()) for row in y) / y.numel()
    assert overlap(distinct) <= ceiling + 1e-9 < 1
    assert overlap(found.labels) > overlap(distinct)


def test_stages_go_from_the_last_tensors_to_the_first():
    assert stage_starts(110, 0.9, 0.23, 8)[0] == 99
    assert stage_starts(110, 0.9, 0.23, 8)[-1] == 26
    assert stage_starts(8, 0.9, 0.0, 8) == sorted(stage_starts(8, 0.9, 0.0, 8), reverse=True)
    layout = layout_of({"a": (2,), "b": (3,), "c": (1,)})
    assert first_active(layout, 2).tolist() == [0, 0, 1, 1, 1, 1]
    assert first_active(layout, 1).tolist() == [1] * 6


def test_the_step_has_few_levels():
    u = torch.randn(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = quantised(u * torch.tensor([1.0, 1e-6, 1e3]).view(3, 1, 1, 1, 1))
    torch.testing.assert_close(out, quantised(u))  # each trial by its own median
    levels = out.abs().unique()
    assert [round(v, 4) for v in levels.tolist()] == [0.2, 0.6, 1.0]
    assert (out.sign() == u.sign()).all()
    assert torch.equal(quantised(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_statistics_that_nobody_has_are_refused():
    with pytest.raises(AccessDenied, match="batch norm"):
        attack("sgi", scenario(batch_size=1), steps=1, bn=1e-4)
