"""Feature inversion, and noise on what is sent: each against its control. PSNR in dB, 8 victims of 16 x 16 pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from split_cells import NOISE, SMALL, answer, data, generator, judged, knowledge, oracle, psnr, target, utility

from inversionbench.core.defense import NONE, Sending
from inversionbench.core.errors import AccessDenied
from inversionbench.defenses.feature_perturbation.additive_noise import AdditiveNoise
from inversionbench.latent.dependence import distance_correlation
from inversionbench.tracks.split.attacks._search import Search
from inversionbench.tracks.split.attacks.feature_inversion import FeatureInversion


def control(name, cut=2):
    return judged(cut).controls[name]["psnr"].mean()


def test_the_deeper_the_cut_the_less_comes_back():
    """rMLE: 22 at the first cut, 14 at the last; the public mean image 11, another victim's release 8."""
    assert psnr(1) > control("mean_image") + 5
    assert psnr(3) < psnr(1) - 3
    assert control("swapped", 1) < control("mean_image", 1)


def test_the_inverse_network_at_the_last_cut():
    """16, where the public mean image has 11; learnt from uniform noise instead of images 6."""
    learnt = psnr(3, access="FT-BB")
    assert learnt > control("mean_image", 3) + 2
    assert psnr(3, access="FT-BB", images="noise") < learnt - 4
    assert answer(3, access="FT-BB")[1].queries == 600  # each public image once
    assert answer(3, access="FT-BB", images="noise")[0].notes["collapsed"] is False


def test_anothers_features_give_the_other():
    """rMLE from another victim's features: 22 dB against the other image, 8 against the own one."""
    truth = data().heldout.images(target(1).truth["rows"].numpy())
    client, h = oracle(1).client_module(), oracle(1).observe()[0].roll(1, 0)
    found = Search(200, 0.05).run(client, h, (3, 16, 16), torch.full((8,), 0.01), generator())
    gap = (found - truth).square().mean() / (found - truth.roll(1, 0)).square().mean()
    assert gap > 5


def test_a_shadow_is_trained_without_asking_and_needs_labels():
    found, ledger = answer(1, access="FT-QF")
    assert ledger.queries == 0
    assert found.notes["adaptive"] is False
    assert psnr(1, access="FT-QF") < psnr(1) - 5  # 7 against 22: the weakest of the three
    nameless = dataclasses.replace(data().public, y=np.full(len(data().public), -1))
    attack = FeatureInversion(access="FT-QF", **SMALL)
    with pytest.raises(AccessDenied, match="no labels"):
        attack.run(oracle(1, level="FT-QF"), knowledge(1, public=nameless), generator())


def test_noise_and_who_knows_of_it():
    """The inverse network has 18 without noise, 11 with it; learnt before the noise 5, from means of 16 releases 14."""
    noisy = psnr(2, NOISE, access="FT-BB")
    assert noisy < psnr(2, access="FT-BB") - 3
    assert psnr(2, NOISE, decoder=True) < noisy - 3
    assert psnr(2, NOISE, access="FT-BB", releases=16) > noisy + 1
    assert answer(2, NOISE, access="FT-BB")[0].notes["adaptive"]
    assert not answer(2, NOISE, decoder=True)[0].notes["adaptive"]
    assert "no meaningful guarantee" in judged(2, NOISE, decoder=True).facts["guarantee"]
    assert "guarantee" not in judged(2).facts


def test_noise_that_training_did_not_know_costs_more():
    """Negative log likelihood on held-out crops: 1.3 trained with the noise, 2.6 without."""
    late = AdditiveNoise(strength=NOISE.strength, when="inference")
    assert utility(2, late)["nll"] > 1.3 * utility(2, NOISE)["nll"]


def test_nopeek_makes_images_and_features_less_dependent():
    """Distance correlation on held-out crops: 0.90 without, 0.59 at weight 2."""
    own = AdditiveNoise(strength=2.0, kind="nopeek")
    assert utility(2)["dcor"] > 0.8
    assert utility(2, own)["dcor"] < 0.75
    assert utility(2, own)["accuracy"] > utility(2)["accuracy"] - 0.2


def sending(training=False, seed=0):
    return Sending(torch.nn.Sequential(), training, generator(seed))


@pytest.mark.parametrize("kind", ["laplace", "gaussian"])
def test_noise_has_the_scale_it_says(kind):
    z, ctx = torch.full((4, 50_000), 0.5), sending()
    for scale in (0.5, 2.0):
        added = AdditiveNoise(strength=scale, kind=kind).release_features(z, ctx) - z
        assert added.std() == pytest.approx(2**0.5 * scale, rel=0.03)
        assert abs(added.mean()) < 0.03 * scale
        wanted = scale if kind == "laplace" else 2 * scale / np.pi**0.5  # mean of the absolute value
        assert added.abs().mean() == pytest.approx(wanted, rel=0.03)
    spread = AdditiveNoise(strength=1.0, kind=kind, unit="sd").release_features(10 * torch.randn(4, 50_000), ctx)
    assert spread.std() == pytest.approx(10 * 3**0.5, rel=0.05)


def test_one_draw_for_one_input_leaves_nothing_to_average():
    z, ctx = torch.rand(3, 8, generator=generator()), sending()
    memoised, fresh = (AdditiveNoise(strength=1.0, draw=draw) for draw in ("memoised", "fresh"))
    assert torch.equal(memoised.release_features(z, ctx), memoised.release_features(z, ctx))
    assert not torch.equal(fresh.release_features(z, ctx), fresh.release_features(z, ctx))
    other = memoised.release_features(z, sending(seed=1))
    assert not torch.equal(other, memoised.release_features(z, ctx))
    assert (memoised.release_features(z, ctx)[0] - z[0]).ne(memoised.release_features(z, ctx)[1] - z[1]).any()


def test_distance_correlation():
    """1 for a linear map, at most 0.3 for 200 independent pairs (0.13 here)."""
    x, y = torch.rand(2, 200, 2, generator=generator())
    assert distance_correlation(x, -3 * x) == pytest.approx(1, abs=1e-4)
    assert distance_correlation(x, y) < 0.3
    assert torch.isfinite(distance_correlation(x, torch.zeros(200, 2)))
    assert NONE.hooks == frozenset()
