"""Sparse coding: the layer solves the printed problem, its dictionary learns without labels, the whole path works."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from classifier_cells import TRACK, data, generator, quiet, scenario
from torch import nn

from inversionbench.core.errors import UserError
from inversionbench.core.recipe import Recipe
from inversionbench.defenses.feature_perturbation.sparse_coding import SparseCoding
from inversionbench.models.classifiers import build
from inversionbench.models.sparse import DenseCode, SparseCode, standardise
from inversionbench.tracks.classifier.track import network
from inversionbench.training.loop import fit


def layer(threshold=0.5, iterations=30, eta=0.05, conv=(3, 8, 5, 2, 2), seed=0):
    torch.manual_seed(seed)
    return SparseCode(nn.Conv2d(*conv), threshold, 10.0, iterations, eta).eval()


def inputs(n=16, start=0):
    return standardise(data().private.images(slice(start, start + n)))


@pytest.mark.parametrize("conv", [(1, 4, 3, 1, 1), (2, 3, 3, 2, 1)])
def test_the_code_is_the_optimum_that_another_solver_finds(conv):
    """Against coordinate descent on the dictionary written out as a matrix, which knows nothing of convolutions."""
    from sklearn.linear_model import Lasso

    code = layer(0.3, 2000, conv=conv).double()
    s = standardise(torch.randn(1, conv[0], 8, 8, generator=generator(), dtype=torch.float64))
    shape = code.solve(s).shape
    cells = torch.eye(shape.numel(), dtype=torch.float64).view(-1, *shape[1:])
    matrix = code.rebuild(cells, s).flatten(1).T.numpy()  # (inputs, atoms at places)
    target = s.flatten().numpy()
    other = Lasso(0.3 / len(target), positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = torch.from_numpy(other.fit(matrix, target).coef_)
    assert torch.allclose(code.solve(s).flatten(), expected, atol=1e-4)
    assert 0.02 < (expected > 0).double().mean() < 0.9


def test_analysis_is_the_adjoint_of_synthesis_at_every_stride():
    for conv, side in (((3, 4, 5, 2, 2), 16), ((3, 4, 5, 2, 2), 15), ((2, 5, 3, 1, 1), 9)):
        code, s = layer(conv=conv), torch.randn(1, conv[0], side, side, generator=generator())
        a = torch.randn(code.solve(s).shape, generator=generator(1))
        assert torch.allclose((code._analyse(s) * a).sum(), (s * code.rebuild(a, s)).sum(), rtol=1e-4)


def test_the_objective_falls_with_the_iterations_and_activity_with_the_threshold():
    s = inputs()
    values = [code.objective(s, code.solve(s)).mean() for code in (layer(iterations=t) for t in (0, 3, 10, 30, 300))]
    assert all(later < sooner for sooner, later in itertools.pairwise(values))
    assert values[3] < 1.02 * values[4]
    active = [(layer(threshold).solve(s) > 0).float().mean() for threshold in (0.1, 0.5, 1.5)]
    assert active[0] > active[1] > active[2] > 0


def test_atoms_inhibit_each_other():
    """Two equal atoms share what one would take: a ReLU of the drive gives both the whole."""
    code = layer(0.1, 300, conv=(1, 2, 3, 1, 1))
    code.atoms.copy_(code.atoms[:1].expand_as(code.atoms))
    code._measure(30)
    s = torch.zeros(1, 1, 7, 7)
    s[..., 2:5, 2:5] = 2 * code.atoms[0]
    both = code.solve(s)[0, :, 3, 3]
    assert both.sum().item() == pytest.approx(1.9, abs=0.01)
    assert torch.allclose(both[0], both[1])


def test_gradients_of_a_white_box_attacker_are_those_of_the_code():
    code = layer(0.2, 20, conv=(1, 3, 3, 1, 1)).double()
    x = torch.rand(1, 1, 6, 6, generator=generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(code, x, atol=1e-5)


def test_a_dictionary_learns_what_images_it_never_saw_are_made_of():
    """Objective on other images against the random dictionary: 0.34 after 54 batches; 0.7 is asked for."""
    code, s = layer(), inputs(64, 200)
    before = code.objective(s, code.solve(s)).mean()
    code.train()
    for i in range(54):
        code(data().private.images(slice(i % 6 * 32, i % 6 * 32 + 32)))
    code.eval()
    assert code.objective(s, code.solve(s)).mean() < 0.7 * before
    assert torch.allclose(code.atoms.flatten(1).norm(dim=1), torch.ones(8))
    exact = layer()
    exact.atoms.copy_(code.atoms)
    exact._measure(300)
    assert code.largest.item() == pytest.approx(exact.largest.item(), rel=0.05)  # followed while it learned


# ---- the defense


@functools.cache
def trained(defense, labels="true", epochs=3):
    x, y = data().private.images(), data().private.labels()
    y = y if labels == "true" else y.flip(0)
    return fit(lambda: build({"name": "cnn", "width": 8}, data().shape, data().classes), x, y, data().classes,
               Recipe(epochs=epochs, batch=32, rate=8e-3), defense, generator())  # fmt: skip


SPARSE = SparseCoding(0.3, layers=2, iterations=10)


def test_layers_at_the_input_and_deeper_are_replaced_and_see_no_label():
    net, other = trained(SPARSE), trained(SPARSE, "others")
    sparse = [m for m in net.modules() if isinstance(m, SparseCode)]
    assert [m.atoms.shape for m in sparse] == [(8, 3, 5, 5), (16, 8, 3, 3)]
    first = next(m for m in other.modules() if isinstance(m, SparseCode))
    assert torch.equal(sparse[0].atoms, first.atoms)
    assert not torch.equal(net.head.weight, other.head.weight)
    assert not any(m.atoms.requires_grad for m in sparse)


def test_a_random_dictionary_stays_as_drawn():
    """The same draw, before and after training; a learned one has left it."""
    random, learned = (SparseCoding(0.3, layers=1, iterations=5, dictionary=kind) for kind in ("random", "learned"))
    drawn, kept, moved = (
        next(m for m in net.modules() if isinstance(m, SparseCode)).atoms
        for net in (trained(random, epochs=0), trained(random), trained(learned))
    )
    assert torch.equal(drawn, kept)
    assert (drawn - moved).norm() > 0.3 * drawn.norm()


def test_the_penalty_of_the_dense_control_makes_its_code_sparse():
    """Mean of the code, penalty 3 against 0.001: under a half."""
    means = []
    for penalty in (0.001, 3.0):
        net = trained(SparseCoding(penalty, layers=1, form="relu"))
        code = next(m for m in net.modules() if isinstance(m, DenseCode))
        means.append(code(data().heldout.images()).mean().item())
    assert means[1] < 0.5 * means[0]


def test_what_is_released_is_the_trained_network():
    defense = SparseCoding(0.3, layers=1, iterations=10)
    spec = scenario(training={"epochs": 8, "rate": 0.008, "batch": 32})
    target = TRACK.train_target(spec, defense, data(), 0, quiet)
    net, x, y = network(target.released), data().private.images(), data().private.labels()
    assert (net(x).argmax(1) == y).double().mean().item() == pytest.approx(target.utility["train_accuracy"])
    assert TRACK.utility_of(spec, target, defense, data(), 0)["accuracy"] > 4 / data().classes


def test_more_layers_than_the_network_has_are_refused():
    with pytest.raises(UserError, match="sparse_coding: 9 layers of 4 convolutions; set layers"):
        SparseCoding(0.5, layers=9).build_model(lambda: build({"name": "cnn"}, (3, 16, 16), 5))
