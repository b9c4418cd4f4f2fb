"""SIPIT on hidden states, exact, noisy and rotated: share of tokens in place, 6 sentences."""

from __future__ import annotations

import pytest
import torch
from sentence_cells import MODEL, TRACK, recovered, scenario, share, target, utility

from inversionbench.core import registry
from inversionbench.core.defense import Sending
from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.defenses.feature_perturbation.additive_noise import AdditiveNoise
from inversionbench.defenses.feature_perturbation.secret_rotation import SecretRotation
from inversionbench.models.text import Block
from inversionbench.plan.params import Entry

ROTATED = SecretRotation(strength=1.0)
NOISY = AdditiveNoise(strength=0.7, kind="gaussian", unit="sd", bounded=False, when="inference")


@pytest.mark.parametrize(("model", "says"), [
    ({"cut": 3}, "model.cut: got 3"), ({"width": 30}, "model.heads: expected a divisor"),
    ({"widths": [1, 2, 3]}, "has no option 'widths'"),
])  # fmt: skip
def test_a_wrong_language_model_is_one_line(model, says):
    with pytest.raises(UserError, match=says):
        TRACK.check(scenario(model={**MODEL, **model}))


def test_a_candidate_is_computed_as_the_whole_sentence_is():
    torch.manual_seed(0)
    block, h = Block(16, 4), torch.randn(3, 5, 16)
    _, k, v = (part.view(3, 5, 4, 4).transpose(1, 2) for part in block.qkv(block.norm1(h)).chunk(3, -1))
    out, own = block.follow(h[:, 4:], (k[:, :, :4], v[:, :, :4]))
    assert torch.allclose(out, block(h)[:, 4:], atol=1e-5)
    assert torch.allclose(own[0], k[:, :, 4:], atol=1e-6)
    assert torch.allclose(own[1], v[:, :, 4:], atol=1e-6)


def test_every_word_of_exact_states_comes_back():
    """1; the sentence of another victim has 0.2, frequent words 0.01."""
    found, answer, ledger = recovered()
    assert found.metrics["exact_match"].mean() == 1
    assert answer.notes["gap"] < 1e-3
    assert found.controls["swapped"]["token_accuracy"].mean() < 0.5
    assert found.controls["unigram"]["token_accuracy"].mean() < 0.2
    assert ledger.passes == 6 * 18 * target().released["classes"]
    assert ledger.queries == 0
    for refused in ("features", "client_module"):
        quiet = TRACK.oracle(scenario(), target().released, None, "FT-QF", ROTATED, 0)
        with pytest.raises(AccessDenied):
            getattr(quiet, refused)


def test_noise_until_it_fails_and_the_mean_of_releases():
    """With noise of one standard deviation 0.1 of the tokens, from means of 16 releases 0.9 and more."""
    assert share(NOISY) < 0.5
    assert share(NOISY, releases=16) > share(NOISY) + 0.3


def test_a_rotation_costs_nothing_and_is_learnt_from_pairs():
    """0 of the tokens, all of them after 8 public sentences."""
    own, plain = utility(ROTATED), utility()
    assert own["accuracy"] == pytest.approx(plain["accuracy"], abs=0.02)
    assert share(ROTATED) < 0.2
    assert share(ROTATED, pairs=8) > 0.9
    assert share(pairs=8) == 1  # and nothing is spoilt where there is no rotation
    assert "key" not in target(ROTATED).released["public_knowledge"]


def test_a_rotation_is_orthogonal_and_as_large_as_it_says():
    ctx = Sending(torch.nn.Sequential(), False, torch.Generator())
    z = torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(0))
    moved = []
    for strength in (0.25, 0.5, 1.0):
        sent = SecretRotation(strength=strength, key=3).release_features(z, ctx)
        assert sent.norm(dim=-1) == pytest.approx(z.norm(dim=-1), rel=1e-4)
        assert torch.equal(sent[..., int(32 * strength) :], z[..., int(32 * strength) :])
        moved.append(float((sent - z).norm()))
    assert moved == sorted(moved)
    other = SecretRotation(strength=1.0, key=4).release_features(z, ctx)
    assert not torch.allclose(other, SecretRotation(strength=1.0, key=3).release_features(z, ctx))


def test_attacks_and_defenses_go_to_their_kind_of_input():
    images = scenario(model={"name": "split_cnn"})
    for method, wanted in (("sipit", [True, False]), ("feature_inversion", [False, True])):
        assert [TRACK.accepts(where, registry.describe("attack", method)) for where in (scenario(), images)] == wanted
    rotation = Entry("secret_rotation", "defense", "secret_rotation", strengths=(1.0,))
    assert (rotation.suits(TRACK, scenario()), rotation.suits(TRACK, images)) == (True, False)
