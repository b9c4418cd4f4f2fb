"""Label recovery: which rule is exact when, and where each one breaks."""

import pytest
import torch
from federated_cells import data, generator, oracle, scenario, target
from torch.nn import functional as F

from inversionbench.core.errors import UserError
from inversionbench.core.protocol import Protocol
from inversionbench.gradients.labels import RULES, Head, _rounded, recover_labels
from inversionbench.gradients.problem import Problem, read, recovered
from inversionbench.models.federated import build


def gradients(net, x, y):
    """name -> (clients, ...) for x (clients, batch, ...)."""
    parts = [torch.autograd.grad(F.cross_entropy(net(a), b), list(net.parameters())) for a, b in zip(x, y)]
    return {n: torch.stack([p[i] for p in parts]) for i, (n, _) in enumerate(net.named_parameters())}


def guess(net, x, y, rule):
    problem = Problem(net, Protocol(batch_size=x.shape[1]), gradients(net, x, y))
    return recovered(problem, rule, generator())


def overlap(a, b, classes=10):
    counts = [torch.stack([F.one_hot(row, classes).sum(0) for row in part]) for part in (a, b)]
    return 1 - int((counts[0] - counts[1]).abs().sum()) / (2 * a.numel())


def draw(clients, batch, seed=0):
    index = torch.randint(len(data().private), (clients, batch), generator=generator(seed))
    return data().private.images(index.flatten().numpy()).unflatten(0, (clients, batch)), data().private.labels(
        index.flatten().numpy()
    ).view(clients, batch)


def victims(activations=("relu", "sigmoid", "tanh"), seeds=3):
    """Untrained nets; large weights only where they do not saturate the softmax to an exact zero gradient."""
    for a in activations:
        for seed in range(seeds):
            init = "uniform" if a == "sigmoid" and seed % 2 else "default"
            yield a, build({"name": "lenet", "activation": a, "init": init}, data().shape, 10, generator(seed))


def trained(net, steps=60):
    x, y = data().private.images(), data().private.labels()
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for i in range(steps):
        rows = torch.randperm(len(x), generator=generator(i))[:40]
        optimiser.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimiser.step()
    return net


def test_one_image_gives_its_label_away_exactly():
    x, y = draw(10, 1)
    nets = [net for _, net in victims()]
    nets.append(trained(build({"name": "convnet"}, data().shape, 10, generator())))
    for net in nets:
        for rule in ("bias", "inner_product"):
            assert torch.equal(guess(net, x, y, rule), y), rule


def test_negative_features_break_the_row_sums_only():
    """The shortcut of the public iDLG code fails where the features of an image sum to less than zero."""
    x, y = draw(30, 1)
    for _, net in victims(("tanh",), 20):
        negative = net.features(net.front(x.flatten(0, 1))).sum(1) < 0
        if 5 < int(negative.sum()) < 25:
            break
    right = (guess(net, x, y, "row_sum") == y)[:, 0]
    assert torch.equal(right, ~negative)
    assert torch.equal(guess(net, x, y, "bias"), y)


def test_batches_with_repeats_on_untrained_networks():
    x, y = draw(12, 8, 1)
    for _, net in victims(("relu", "tanh"), 1):
        assert overlap(guess(net, x, y, "ilrg"), y) == 1.0
        assert overlap(guess(net, x, y, "bias_corrected"), y) > 0.9
    distinct = sum(len(row.unique()) for row in y) / y.numel()
    relu = next(n for _, n in victims(("relu",), 1))
    for rule in ("row_sum", "min_row"):
        assert overlap(guess(relu, x, y, rule), y) <= distinct + 1e-9  # these never return a class twice
    assert overlap(guess(relu, x, y, "geng"), y) > 0.8
    assert overlap(guess(relu, x, y, "wainakh"), y) > 0.5


def test_the_order_of_the_rules_turns_round_on_a_fitted_network():
    net = trained(build({"name": "lenet", "activation": "relu", "init": "default"}, data().shape, 10, generator()), 150)
    x, y = draw(12, 8, 2)
    scores = {rule: overlap(guess(net, x, y, rule), y) for rule in ("ilrg", "min_row")}
    assert scores["ilrg"] < min(0.9, scores["min_row"])  # exact on the same network untrained
    untrained = build({"name": "lenet", "activation": "relu", "init": "default"}, data().shape, 10, generator())
    assert overlap(guess(untrained, x, y, "ilrg"), y) == 1.0


def test_counts_always_fill_the_batch():
    for rule in RULES:
        for batch in (1, 3, 25):
            if rule == "inner_product" and batch > 1:
                continue
            head = Head(torch.randn(5, 7, generator=generator(batch)), torch.randn(5, generator=generator(9)),
                        torch.randn(5, 7), torch.randn(5), torch.full((5,), 0.2), 3.0)  # fmt: skip
            labels = recover_labels(head, batch, rule)
            assert labels.shape == (batch,)
            assert torch.equal(labels, labels.sort().values)
            assert 0 <= int(labels.min()) <= int(labels.max()) < 5


def test_counts_are_rounded_to_the_nearest_batch():
    g = generator()
    for batch in (1, 2, 5):
        grid = torch.cartesian_prod(*[torch.arange(batch + 1)] * 4)
        grid = grid[grid.sum(1) == batch]
        for _ in range(20):
            counts = 4 * torch.rand(4, generator=g, dtype=torch.double)
            squares = ((grid - counts) ** 2).sum(1)
            rounded = _rounded(counts, batch)
            assert rounded.sum() == batch
            assert ((rounded - counts) ** 2).sum() == pytest.approx(squares.min().item())
    wild = torch.tensor([3.0, 1e300, -torch.inf, torch.nan], dtype=torch.double)  # such counts a quantised update has
    assert _rounded(wild, 2).tolist() == [0, 2, 0, 0]


def test_a_zero_gradient_is_survived():
    head = Head(torch.zeros(4, 3), torch.zeros(4), torch.zeros(4, 3), torch.zeros(4), torch.full((4,), 0.25), 1.0)
    for rule in RULES:
        assert len(recover_labels(head, 1, rule)) == 1


def test_what_a_rule_needs():
    head = Head(torch.randn(4, 3), None, torch.zeros(4, 3), None)
    with pytest.raises(UserError, match="bias"):
        recover_labels(head, 1, "ilrg")
    with pytest.raises(UserError, match="batch 1"):
        recover_labels(head, 2, "inner_product")
    with pytest.raises(UserError, match="did you mean 'min_row'"):
        recover_labels(head, 1, "minrow")


def test_weight_differences_are_read_as_gradients():
    where = scenario(subjects=6, batch_size=1, sends="delta", local_rate=0.01)
    made = target(where)
    assert torch.equal(recovered(read(oracle(where, made)), "bias", generator()), made.truth["labels"])
