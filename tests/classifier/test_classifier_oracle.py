"""The classifier's oracle: passes and queries counted, releases inside, statistics folded, a child process."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from classifier_cells import data, generator, knowledge, quiet, run, scenario, target
from classifier_cells import oracle as asking
from classifier_cells import prior as small_prior
from style_cells import style_prior
from torch import nn

from inversionbench.core.defense import Defense
from inversionbench.core.errors import AccessDenied, BudgetExceeded
from inversionbench.defenses.miscellaneous.confidence_rounding import ConfidenceRounding
from inversionbench.models.generators import Generator
from inversionbench.oracle.base import InputSpec
from inversionbench.oracle.classifier import CHUNK, Affine, classifier_oracle
from inversionbench.oracle.strict import _remote, served
from inversionbench.priors.completion import Completion
from inversionbench.priors.embedder import EmbedderRecipe
from inversionbench.priors.tacgan import Tacgan
from inversionbench.tracks import get_track
from inversionbench.tracks.classifier.attacks.brep_mi import BrepMi
from inversionbench.tracks.classifier.attacks.c2fmi import C2fmi
from inversionbench.tracks.classifier.attacks.gmi import Gmi
from inversionbench.tracks.classifier.attacks.lokt import Lokt
from inversionbench.tracks.classifier.attacks.mi_face import MiFace
from inversionbench.tracks.classifier.attacks.mirror import Mirror
from inversionbench.tracks.classifier.attacks.random_prior import RandomPrior
from inversionbench.tracks.classifier.attacks.random_search import RandomSearch
from inversionbench.tracks.classifier.attacks.rlb_mi import RlbMi
from inversionbench.tracks.classifier.attacks.secretgen import SecretGen
from inversionbench.tracks.classifier.hints import damage
from inversionbench.tracks.classifier.track import network


def net():
    return network(target().released)


def oracle(level, **options):
    return classifier_oracle(net(), level, InputSpec(data().shape), data().classes, **options)


def images(n=5):
    return data().heldout.images(slice(0, n))


def test_levels_answer_what_they_promise():
    x, logits = images(), net()(images())
    assert torch.allclose(oracle("BB-L").logits(x), logits, atol=1e-5)
    assert torch.allclose(oracle("BB-S").scores(x), logits.softmax(1), atol=1e-6)
    assert torch.equal(oracle("LO").labels(x), logits.argmax(1))
    for level, call in (("BB-L", "logits"), ("BB-S", "scores"), ("LO", "labels")):
        answer = getattr(oracle(level), call)(x)
        assert not answer.requires_grad
        assert not answer.is_inference()  # an attack may compute with it


def test_every_query_is_counted_and_the_budget_holds_before_the_answer():
    asked = oracle("LO", budget=12)
    for n in (8, 3):
        asked.labels(images(n), phase="init")
    with pytest.raises(BudgetExceeded):
        asked.labels(images(2))
    assert asked.ledger.queries == 11
    assert asked.ledger.by_phase() == {"init": 11}
    many = oracle("BB-S")
    many.scores(torch.rand(CHUNK + 3, *data().shape, generator=generator()))
    assert many.ledger.queries == CHUNK + 3


def test_white_box_passes_are_counted_on_both_ways_in():
    asked = oracle("WB")
    module = asked.module()
    module(images(4))
    module.phase = "select"
    seen = module.trace(images(3))
    assert [(row.phase, row.inputs) for row in asked.ledger.rows] == [("search", 4), ("select", 3)]
    assert asked.ledger.queries == 0
    assert seen.features is not None
    assert set(seen.hidden) == {"block1", "block2", "block3", "block4"}
    x = images(2).requires_grad_(True)
    assert torch.autograd.grad(module(x).sum(), x)[0].abs().sum() > 0
    assert not any(p.requires_grad for p in module.parameters())


def test_the_copy_cannot_harm_the_target():
    model = net()
    asked = classifier_oracle(model, "WB", InputSpec(data().shape), data().classes)
    with torch.no_grad():
        for parameter in asked.module().parameters():
            parameter.zero_()
    assert torch.equal(model(images()), net()(images()))


def test_statistics_are_folded_away_and_the_answers_stay():
    module = oracle("WB-noBN").module()
    assert torch.allclose(module(images()), net()(images()), atol=1e-4)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
    assert sum(isinstance(m, Affine) for m in module.modules()) == 5
    assert not any("running" in name for name, _ in module.named_buffers())
    norm = nn.BatchNorm1d(3, affine=False).train()
    norm(torch.randn(20, 3, generator=generator()) * 4 + 1)
    x = torch.randn(2, 3, generator=generator(1))
    assert torch.allclose(Affine(norm)(x), norm.eval()(x), atol=1e-6)


def test_a_release_is_inside_every_black_box():
    class Uniform(Defense):
        hooks = frozenset({"release"})

        def release(self, logits, rng):
            out = torch.full_like(logits, 1 / logits.shape[1])
            out[:, 7] += 0.01 * torch.rand(1, generator=rng)
            return out

    x = images()
    first = oracle("BB-S", defense=Uniform(), rng=generator())
    assert (first.scores(x).argmax(1) == 7).all()
    assert not torch.equal(first.scores(x), first.scores(x))  # drawn anew for each question
    assert (oracle("LO", defense=Uniform(), rng=generator()).labels(x) == 7).all()
    assert (oracle("BB-L", defense=Uniform(), rng=generator()).logits(x).argmax(1) == 7).all()
    assert torch.allclose(oracle("WB", defense=Uniform()).module()(x), net()(x), atol=1e-5)


def test_the_service_may_give_away_less():
    x = images()
    p = net()(x).softmax(1)
    few = oracle("BB-S", top_k=2).scores(x)
    assert ((few > 0).sum(1) <= 2).all()
    assert torch.equal(few.argmax(1), p.argmax(1))
    short = oracle("BB-S", decimals=1).scores(x)
    assert torch.allclose(short * 10, (short * 10).round(), atol=1e-4)


def test_inputs_are_checked():
    asked = oracle("BB-S")
    for wrong, error in (
        (images() * 2, ValueError), (images().double(), ValueError), (images()[:, :2], ValueError),
        (images().requires_grad_(True), AccessDenied), (images()[:0], ValueError),
    ):
        with pytest.raises(error):
            asked.scores(wrong)
    assert asked.ledger.queries == 0


# ---- strict mode

BLACK_BOX = {  # every black-box attack once, with a tiny budget
    "brep_mi": BrepMi(sphere=4, limit=2),
    "random_search": RandomSearch(draws=2, restarts=1),
    "mi_face": MiFace(access="BB-S", iterations=2, directions=2, difference=0.05, start="grey"),
    "mirror": Mirror(access="BB-S", samples=8, population=4, generations=2),
    "secretgen": SecretGen(access="BB-S", base="completion", latents=2, iterations=2),
    "c2fmi": C2fmi(base="dcgan", images=20, width=8, epochs=1, coarse_steps=1, starts=2, keep=2, population=4,
                   generations=1),
    "rlb_mi": RlbMi(episodes=4, hidden=8, batch=2),
    "lokt": Lokt(iterations=1, restarts=1),
}


def granted(name):
    """What an attack knows; the priors of these two have hardly learnt anything."""
    if name == "mirror":
        return knowledge(prior=style_prior(steps=2))
    if name == "secretgen":
        recipe = Completion(z_dim=8, width=4, critic_width=4, loss="hinge", steps=2, batch=8)
        prior = recipe.load(recipe.train(data().public, generator(), quiet))
        return knowledge(prior=prior, **damage(data(), scenario().subjects, {"hints": 1}, 0)[0])
    if name == "c2fmi":
        recipe = EmbedderRecipe(model={"name": "cnn", "width": 8}, epochs=1)
        own = recipe.load(recipe.train(data().public, generator(), quiet))
        return knowledge(priors={"dcgan": small_prior(), "embedder": own})
    if name == "lokt":
        models = ({"name": "cnn", "width": 8},)
        own = Tacgan(steps=2, warm_up=1, batch=4, critic_steps=1, each=2, models=models, epochs=1)
        base = SimpleNamespace(generator=Generator(4, 4, 3, data().shape[-1]))
        return knowledge(prior=own.load(own.train(data().public, generator(), quiet, asking(own), base)))
    return knowledge()


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "0.pt"
    torch.save(target().released, path)
    return path


@pytest.mark.parametrize("name", BLACK_BOX)
def test_black_box_attacks_run_against_another_process(name, released):
    """Same image bits, same ledger, same refusals as in one process."""
    attack = BLACK_BOX[name]
    level = attack.level if isinstance(attack.level, str) else attack.access
    asked = asking(attack, ConfidenceRounding(0.01))
    inside = attack.run(asked, granted(name), generator())
    budget = asked.ledger.queries


    def make():
        loaded = torch.load(released, weights_only=True)
        limited = replace(scenario(), protocol={"budget": budget})
        return get_track("classifier").oracle(limited, loaded, attack, level, ConfidenceRounding(0.01), 5)

    with served(make) as oracle:
        outside = attack.run(oracle, granted(name), generator())
        assert torch.equal(outside.data, inside.data)
        assert oracle.ledger.rows == asked.ledger.rows
        call = getattr(oracle, {"LO": "labels", "BB-S": "scores"}[level])
        with pytest.raises(BudgetExceeded):
            call(images(1))
        with pytest.raises(AccessDenied):
            call(images(1).requires_grad_(True))
        with pytest.raises(AccessDenied):
            oracle.module()
        with pytest.raises(ValueError, match="phase must be one of"):
            call(images(1), phase="peek")
    assert oracle.num_classes == data().classes


def test_every_black_box_attack_is_in_the_strict_table():
    from inversionbench.core import registry

    known = registry.methods("attack").values()
    ours = {m.id for m in known if m.group == "classifier"}
    levels = {m.id: m.attributes["level"] for m in known if m.id in ours}
    black = {i for i, level in levels.items() if {"LO", "BB-S", "BB-L"} & set(level if isinstance(level, tuple)
                                                                             else (level,))}
    assert black - {"random_prior"} == set(BLACK_BOX)  # random_prior asks nothing


def test_white_box_cannot_be_served():
    with pytest.raises(ValueError, match="no black box"):
        _remote(None, {"level": "WB"})


def test_asking_nothing_costs_nothing():
    answer, asked = run(RandomPrior(restarts=1))
    assert (asked.ledger.queries, asked.ledger.passes) == (0, 0)
    assert len(answer.data) == scenario().subjects
    assert run(Gmi(iterations=1, realism=0.0, restarts=1))[1].ledger.passes == scenario().subjects
