"""The split track: two halves, what each level grants, what the client pays, how an answer is judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pandas as pd
import pytest
import torch
from split_cells import NOISE, TRACK, answer, data, generator, judged, oracle, quiet, scenario, target, utility
from torch import nn

from inversionbench.core.defense import NONE, Defense
from inversionbench.core.errors import AccessDenied, BudgetExceeded, UserError
from inversionbench.models.inverse import Inverse
from inversionbench.models.split import split_cnn
from inversionbench.tracks.split.figures import _pays, costs, depths
from inversionbench.tracks.split.halves import load_halves
from inversionbench.training.evaluators import plain_state
from inversionbench.training.inverse import CONSTANT, TRIES, until_it_varies


@pytest.mark.parametrize(("changes", "says"), [
    ({"model": {"name": "split_cnn", "cut": 4}}, "model.cut: got 4"),
    ({"model": {"name": "split_cn"}}, "did you mean 'split_cnn'"),
    ({"protocol": {"labels": "known"}}, "protocol: unknown 'labels'"),
    ({"protocol": {"budget": 0}}, "protocol.budget: expected a whole number of at least 1"),
    ({"subjects": 1}, "at least 2 victims"),
    ({"training": {"epoch": 3}}, "did you mean 'epochs'"),
])  # fmt: skip
def test_a_wrong_scenario_is_one_line(changes, says):
    with pytest.raises(UserError, match=says):
        TRACK.check(scenario(**changes))


def test_the_halves_are_one_network():
    net = load_halves(target().released, NONE, 0)
    x = data().heldout.images(slice(4))
    whole = nn.Sequential(net.client, net.server)
    assert torch.equal(net(x), whole(x))
    assert torch.equal(net(x), net.server(net.send(x)))
    rows = target().truth["rows"]
    assert torch.equal(target().released["features"], net.client(data().heldout.images(rows.numpy())))
    assert len(set(rows.tolist())) == scenario().subjects


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 48)])
def test_every_size_of_image_and_cut(shape):
    for cut, stride in ((1, 2), (2, 4), (3, 8)):
        net = split_cnn(shape, 5, cut, (4, 6, 8))
        z = net.send(torch.rand(2, *shape))
        assert z.shape[2:] == (-(-shape[1] // 8) * 8 // stride, -(-shape[2] // 8) * 8 // stride)
        assert net.server(z).shape == (2, 5)
        assert Inverse(tuple(z.shape[1:]), shape, 4)(z).shape == (2, *shape)


def test_what_the_client_pays():
    """Parameters, operations and bytes of the first cut, counted by hand; a deeper one pays more and sends less."""
    found = utility(1)
    convs = (3 * 9 + 1) * 8 + (8 * 9 + 1) * 8
    assert found["client_parameters"] == convs
    assert found["client_flops"] == 2 * 16 * 16 * 8 * 9 * (3 + 8)
    assert found["bytes_sent"] == 4 * 8 * 8 * 8
    deep = utility(3)
    assert deep["client_flops"] > found["client_flops"]
    assert deep["bytes_sent"] < found["bytes_sent"]
    assert len(found["hits"]) == len(data().heldout)
    assert found["accuracy"] > 3 * found["chance"]


@pytest.mark.parametrize(("level", "refused"), [
    ("FT-WB", ("scores", "labels")), ("FT-BB", ("client_module", "module")), ("FT-QF", ("client_module", "features")),
])  # fmt: skip
def test_what_a_level_does_not_grant(level, refused):
    asked = oracle(level=level)
    for call in refused:
        with pytest.raises(AccessDenied):
            getattr(asked, call)


def test_questions_are_counted_and_limited():
    asked = oracle(level="FT-BB", budget=5)
    asked.features(torch.rand(4, 3, 16, 16))
    assert asked.ledger.queries == 4
    with pytest.raises(BudgetExceeded):
        asked.features(torch.rand(2, 3, 16, 16))
    own = oracle(level="FT-WB")
    own.features(torch.rand(4, 3, 16, 16))
    assert (own.ledger.queries, own.ledger.passes) == (0, 4)


@dataclass(frozen=True)
class Rounded(Defense):
    """Acts on the release alone."""

    id: ClassVar[str] = "rounded"
    hooks: ClassVar[frozenset[str]] = frozenset({"release_features"})

    def release_features(self, z, ctx):
        assert isinstance(ctx.client, nn.Sequential)
        return z.round() if self.strength else z


def test_a_defense_of_the_release_acts_on_the_undefended_halves():
    defense, plain = Rounded(strength=1.0), target().released
    asked = TRACK.oracle(scenario(), plain, None, "FT-BB", defense, 0)
    assert torch.equal(asked.observe()[0], plain["features"].round())
    x = torch.rand(3, 3, 16, 16, generator=generator())
    assert torch.equal(asked.features(x), oracle().client_module()(x).round())


def test_halves_trained_with_a_defense_of_strength_0_are_the_undefended_ones():
    own = TRACK.train_target(scenario(), replace(NOISE, strength=0.0, alpha=1.0), data(), 0, quiet)
    for name, value in target().released["state"].items():
        assert torch.equal(own.released["state"][name], value), name


def test_an_answer_is_judged_against_the_very_input():
    found = judged()
    truth = data().heldout.images(target().truth["rows"].numpy())
    assert torch.equal(found.gallery["original"], truth)
    assert (found.controls["truth"]["psnr"] == 60).all()
    images = answer()[0].data
    mse = (images - truth).square().flatten(1).mean(1)
    assert found.metrics["mse"] == pytest.approx(mse.numpy(), rel=1e-4)
    swapped = (images.roll(1, 0) - truth).square().flatten(1).mean(1)
    assert found.controls["swapped"]["mse"] == pytest.approx(swapped.numpy(), rel=1e-4)
    assert found.controls["class_mean"].keys() == found.controls["mean_image"].keys()
    assert "identified" in found.unavailable


class _Gallery:
    """A verifier that knows everybody in bright images."""

    def scores(self, x, y):
        return {"identified": x.flatten(1).mean(1) > 0.5, "verified": y >= 0}


class _Judges:
    galleries: ClassVar = {"": _Gallery()}
    absent: ClassVar = {"dlib_": "no weights"}
    heldout: ClassVar = {"verifier": {"identified": 0.9}}


def test_where_judges_look_on_people_are_identified():
    """Beside the answer in every control, from the same images as the pixel metrics see."""
    found = TRACK.evaluate(scenario(), answer()[0], target(), data(), _Judges(), 1)
    bright = answer()[0].data.flatten(1).mean(1) > 0.5
    assert found.metrics["identified"].tolist() == bright.double().tolist()
    assert found.controls["swapped"]["identified"].tolist() == bright.roll(1).double().tolist()
    assert found.controls["truth"]["verified"].mean() == 1
    assert found.unavailable["dlib_identified"] == "no weights"
    assert found.facts["heldout"] == _Judges.heldout


def test_networks_that_differ_in_the_cut_alone_share_a_panel():
    def record(name, **changes):
        given = {"model": {"name": "split_cnn", "cut": 1}, "training": {}, "protocol": {}, "subjects": 8, **changes}
        return {"track": "split", "dataset": "photos", "scenario": name, "parameters": {"scenario": given}}

    deep, other = {"name": "split_cnn", "cut": 3}, {"name": "split_cnn", "cut": 2, "widths": [4, 4, 4]}
    found = [record("a"), record("b", model=deep, subjects=16), record("c", model=other),
             {**record("d", model=deep), "track": "federated"}]  # fmt: skip
    assert depths(found) == {"photos": {"a": 1, "b": 3}}
    more = [*found, record("e", training={"epochs": 1}), record("f", training={"epochs": 1}, model=deep)]
    assert set(depths(more)) == {"photos: a, b", "photos: e, f"}


def test_what_the_device_pays_more_under_a_defense(tmp_path):
    def row(defense, strength, flops, sent=100.0):
        return {"track": "split", "scenario": "s", "defense": defense, "strength": strength,
                "utility_client_parameters": 10.0, "utility_client_flops": flops, "utility_bytes_sent": sent}

    frame = pd.DataFrame([row("none", 0.0, 50.0), row("additive_noise", 1.0, 50.0), row("pruned", 0.5, 25.0, 20.0)])
    paid = costs(frame)
    assert paid.loc["s", "pruned", 0.5].to_dict() == {"client_parameters": 1, "client_flops": 0.5, "bytes_sent": 0.2}
    assert len(paid) == 1
    picture = _pays(paid, tmp_path)
    assert picture.path.stat().st_size > 0
    assert costs(frame[["track", "scenario"]]).empty


def test_a_constant_network_is_seen_and_tried_again():
    """Two of three networks are constant: the third is taken. All are: marked, with a warning."""
    images = torch.rand(20, 3, 16, 16, generator=generator())
    dead, alive, tried = _Constant(), _Same(), []

    def train(rng):
        tried.append(rng.initial_seed())
        return alive if len(tried) == 3 else dead

    net, facts = until_it_varies(train, images, images, generator())
    assert net is alive
    assert (facts["inverse_tries"], facts["collapsed"]) == (3, False)
    assert len(set(tried)) == 3
    net, facts = until_it_varies(lambda rng: dead, images, images, generator())
    assert (facts["inverse_tries"], facts["collapsed"]) == (TRIES, True)
    assert facts["inverse_variation"] < CONSTANT
    assert "says nothing of the defense" in facts["warnings"][0]


class _Same(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.weight


class _Constant(_Same):
    def forward(self, x):
        return torch.full_like(x, 0.5) * self.weight


def test_a_vector_is_inverted_too():
    net = Inverse((10,), (1, 28, 28), 4)
    assert net(torch.randn(3, 10)).shape == (3, 1, 28, 28)
    with pytest.raises(ValueError, match="release: expected"):
        Inverse((4, 64, 64), (3, 32, 32))
    assert plain_state(net)
