"""Early stopping by class: who leaves, what stays behind, and that nobody else notices."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from inversionbench.latent.losses import cross_entropy
from inversionbench.latent.search import Momentum, Point, Search
from inversionbench.latent.stop import Stop, Watch
from inversionbench.oracle.base import Ledger
from inversionbench.oracle.classifier import WhiteBox

CLASSES, DIM = 4, 6
OPTIMISERS = {
    "momentum": partial(Momentum, rate=0.1, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.1),
}
Y = torch.arange(CLASSES).repeat_interleave(2)


class _Net(nn.Module):
    """Linear, with classes of very different sharpness: the last ones are sure much later."""

    def __init__(self):
        super().__init__()
        sharp = torch.tensor([4.0, 2.0, 0.8, 0.3])[:, None]
        self.w = nn.Parameter(torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(1)) * sharp)

    def forward(self, x):
        return x.flatten(1) @ self.w.T


def search(name="adam", **options):
    given = {"iterations": 60, "stop": Stop(goal=0.9), "keep_at": (5,), **options}
    return Search(
        generator=lambda z: z.view(-1, 1, 2, 3).clone(), target=WhiteBox(_Net(), Ledger()), identity=cross_entropy,
        optimiser=OPTIMISERS[name], **given,
    )  # fmt: skip


def start():
    return torch.randn(len(Y), DIM, generator=torch.Generator().manual_seed(2)) * 0.3


@pytest.mark.parametrize("name", OPTIMISERS)
def test_who_stays_is_searched_as_before_and_who_leaves_costs_no_more(name):
    whole, kept = search(name, stop=Stop(), keep_at=range(1, 61)), search(name)
    full, path = whole.run(Point(start()), Y)  # the uninterrupted search, step by step
    path[0] = start().view(-1, 1, 2, 3)
    images, _ = kept.run(Point(start()), Y)
    net, steps = _Net(), []
    for t in range(60):
        score = net(path[t]).softmax(1).gather(1, Y[:, None])[:, 0]
        steps.append((score >= 0.9).view(CLASSES, 2).all(1))
    first = [next((t for t in range(60) if steps[t][c]), None) for c in range(CLASSES)]
    assert len({t for t in first if t is not None}) > 1  # they leave at different steps
    for c, t in enumerate(first):
        expected = full if t is None else path[t]
        assert torch.allclose(images.view(CLASSES, 2, -1)[c], expected.view(CLASSES, 2, -1)[c], atol=1e-6)
    paid = sum(2 * (60 if t is None else t + 1) for t in first)
    assert kept.target.ledger.passes == paid < whole.target.ledger.passes


def test_the_loop_ends_with_the_last_class_and_curves_hold_all_rows():
    easy = search(stop=Stop(goal=0.3), iterations=500, keep_at=(2, 400))
    images, kept = easy.run(Point(start()), Y)
    assert easy.target.ledger.passes < 500 * len(Y) / 4
    assert images.shape == (len(Y), 1, 2, 3) == kept[2].shape
    assert torch.equal(kept[400], images)  # all had left by then


def test_patience_ends_a_class_that_no_longer_moves():
    idle = search(stop=Stop(patience=3))
    stuck = Search(idle.generator, idle.target, idle.identity, partial(Momentum, rate=0.0, momentum=0.0), 50,
                   stop=idle.stop)  # fmt: skip
    stuck.run(Point(start()), Y)
    assert idle.target.ledger.passes == 4 * len(Y)


def test_goal_must_be_held_by_every_row_of_the_class():
    y = torch.tensor([3, 3, 7])
    watch = Watch(Stop(goal=0.5, hold=2), y)
    sure, unsure = [10.0 * (c == 7) for c in range(8)], [10.0 * (c == 0) for c in range(8)]
    three = [10.0 * (c == 3) for c in range(8)]
    loss = torch.ones(3)
    assert watch.finished(loss, torch.tensor([three, unsure, sure]), y).tolist() == [False] * 3
    assert watch.finished(loss, torch.tensor([three, three, unsure]), y).tolist() == [False] * 3
    assert watch.finished(loss, torch.tensor([three, three, sure]), y).tolist() == [True, True, False]
    assert watch.finished(loss[2:], torch.tensor([sure]), y[2:]).tolist() == [True]


def test_settings_are_checked():
    assert not Stop()
    for wrong in ({"goal": 1.5}, {"goal": 0.5, "hold": 0}, {"patience": -1}):
        with pytest.raises(ValueError, match="expected"):
            Stop(**wrong)
