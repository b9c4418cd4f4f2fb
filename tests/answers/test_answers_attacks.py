"""SMI, explanations for model inversion, and defenses of scores: each against its control.

Figures in docstrings: mean squared error over 32 victims, as a share of that of the public mean image.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from answers_cells import (
    KINDS,
    NOISE,
    SMALL,
    answer,
    data,
    error,
    generator,
    judged,
    knowledge,
    oracle,
    quiet,
    scenario,
    target,
)

from inversionbench.core.defense import NONE
from inversionbench.core.errors import UserError
from inversionbench.defenses.miscellaneous.adversarial_noise import AdversarialNoise
from inversionbench.defenses.miscellaneous.top_k import TopK
from inversionbench.models.inverse import log_scores
from inversionbench.tracks import get_track
from inversionbench.tracks.answers.attacks.smi import Critic, Smi
from inversionbench.tracks.answers.service import network, utility
from inversionbench.training.evaluators import outputs

PIXEL = {"adversarial": 0.0, "supervision": 0.0}
BEFORE = {**PIXEL, "access": "AN-OLD"}
PLAIN = {"id": "none", "params": {}}
RANDOM = AdversarialNoise(strength=0.6, direction="random")


def swapped(name="smi", **params):
    found = judged(name, **params)
    return found.controls["swapped"]["mse"].mean() / found.controls["mean_image"]["mse"].mean()


def test_an_inversion_network_beats_the_mean_image():
    """0.72; from another victim's scores 1.24."""
    assert error(**PIXEL) < 0.86
    assert swapped(**PIXEL) > 1.1
    assert answer(**PIXEL)[0].notes["collapsed"] is False


def test_classes_make_it_sharper_and_worse_in_pixels():
    """Sharpness 1.2 against 0.75 of the photographs', error 0.86 against 0.72. The same network without the critic."""
    assert judged().facts["sharpness"] > judged(**PIXEL).facts["sharpness"] + 0.15
    assert error() > error(**PIXEL) + 0.04


def test_the_critic_is_taught_and_teaches():
    """The class of what G makes, by the critic, gets nearer to the labels over 20 steps on one batch."""
    attack, torch_rng = Smi(adversarial=0.0, supervision=1.0), generator()
    torch.manual_seed(0)
    critic, made = Critic(3, 10, 8), torch.rand(32, 3, 16, 16, generator=torch_rng).requires_grad_()
    adam = torch.optim.Adam(critic.parameters(), 2e-3)
    real, y = data().public.images(slice(32)), data().public.labels(slice(32))
    losses = []
    for _ in range(40):
        loss = attack.judged(critic, adam, made, real, y)
        (slope,) = torch.autograd.grad(loss, made)
        made = (made - 5 * slope).detach().requires_grad_()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_labels_of_the_auxiliary_images():
    """True and pseudo labels make other networks than random ones; the answers that teach are the same."""
    images = {name: answer(labels=name, epochs=1)[0].data for name in ("true", "pseudo", "random")}
    assert not torch.equal(images["true"], images["random"])
    assert not torch.equal(images["pseudo"], images["random"])
    assert answer(labels="true", epochs=1)[1].rows == answer(labels="random", epochs=1)[1].rows


def test_which_auxiliary_images_are_taken():
    granted = knowledge(attacked=4)
    for kind, share in (("same", 1.0), ("mixed", 0.5), ("disjoint", 0.0)):
        attack = Smi(auxiliary=kind, labels="true")
        images, y = attack.choose(granted, generator())
        assert len(images) == len(y) == 4 * 60
        assert (y < 4).double().mean() == share


def test_public_images_of_the_victims_classes_teach_most():
    """Error over the 18 victims of five classes: 0.034 from images of these, 0.074 from those of the other five."""
    rows = target().truth["rows"].numpy()
    own = data().heldout.labels(rows) < 5

    def miss(kind):
        found = Smi(auxiliary=kind, **PIXEL, **SMALL).run(oracle(), knowledge(attacked=5), generator(7))
        return (found.data - data().heldout.images(rows))[own].square().mean()

    assert miss("disjoint") > 1.3 * miss("same")


def test_scores_that_are_not_kept():
    p = torch.tensor([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6]])
    assert torch.equal(Smi(top=2).kept(p)[0], torch.tensor([0.5, 0.0, 0.4]))
    assert torch.equal(Smi().kept(p), p)


def test_explanations_tell_where():
    """U-Net on the gradient 0.48 to 0.56, on relevance 0.25, on the coarse Grad-CAM 0.63 to 0.77, on scores alone 0.70;
    with another victim's explanation 1.0."""
    alone, relevance = error("xai_inversion", form="prediction"), error("xai_inversion", kind="lrp")
    assert error("xai_inversion") < alone - 0.05
    assert relevance < error("xai_inversion") - 0.08
    assert error("xai_inversion", kind="gradcam") > relevance + 0.15
    assert error("shuffled_explanation") > error("xai_inversion") + 0.2


def test_a_flattened_map_is_no_map():
    """The same gradient as one vector 0.70, in a U-Net 0.48."""
    assert error("xai_inversion", form="unet") < error("xai_inversion", form="flatten") - 0.08


def test_attention_transfer_needs_scores_alone():
    """0.59 to 0.69, where the mean image has 1 and the service's own relevance gives 0.25."""
    found, ledger = answer("xai_inversion", access="AN-S")
    assert {row.call for row in ledger.rows} == {"scores"}
    assert error("xai_inversion", kind="lrp") + 0.15 < error("xai_inversion", access="AN-S") < 0.85
    assert found.notes["inverse_tries"] == 1


# ---- adversarial noise, top-k


def released(defense):
    own = target(defense if defense.learnt else NONE)
    logits = network(own.released)(data().heldout.images())
    made = oracle("AN-S", defense, explanations=KINDS).scores(data().heldout.images())
    return logits.softmax(1), made


@pytest.mark.parametrize("defense", [NOISE, RANDOM, TopK(strength=0.5), TopK(strength=1.0)])
def test_the_label_never_changes(defense):
    p, q = released(defense)
    assert torch.equal(q.argmax(1), p.argmax(1))
    assert not torch.equal(p, q)
    assert utility(target(defense if defense.learnt else NONE).released, defense, data(), 0)["accuracy"] == \
        utility(target().released, NONE, data(), 0)["accuracy"]  # fmt: skip


@pytest.mark.parametrize("defense", [NOISE, RANDOM])
def test_noise_stays_among_distributions_and_within_its_budget(defense):
    p, q = released(defense)
    assert q.min() >= 0
    assert q.sum(1).numpy() == pytest.approx(1.0, abs=1e-5)
    far = (q - p).abs().sum(1)
    assert far.max() <= defense.strength + 1e-5
    assert far.median() > 0.5 * defense.strength
    assert torch.equal(released(defense)[1], q)  # the same question, the same answer


def test_answers_at_the_edge_keep_their_label():
    """Ties, near ties, certainty."""
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0 + 1e-7, 0.0], [90.0, 0.0, 0.0],
                           [0.0, 1e-6, 2e-6]])  # fmt: skip
    for strength in (0.01, 0.5, 2.0):
        q = AdversarialNoise(strength=strength, direction="random").release(logits, generator())
        assert torch.equal(q.argmax(1), logits.softmax(1).argmax(1))
        assert torch.isfinite(q).all()


def test_noise_against_a_network_that_does_not_know_it():
    """Learnt before the defense: 0.72 without noise, 0.97 with random noise, 2.45 with adversarial noise of the same
    size, made against another network; learnt from noisy answers 1.03."""
    assert error(defense=RANDOM, **BEFORE) > error(**PIXEL) + 0.08
    assert error(defense=NOISE, **BEFORE) > error(defense=RANDOM, **BEFORE) + 0.4
    assert error(defense=NOISE, **PIXEL) < error(defense=NOISE, **BEFORE) - 0.4


def test_more_noise_moves_the_defenders_network_more():
    own = target(NOISE).released["defense"]["params"]["learned"]
    logits, gaps = target().released["observed"]["logits"], []
    for strength in (0.1, 0.6, 1.5):
        defense = AdversarialNoise(strength=strength, learned=own)
        net, released = defense.network(10), defense.release(logits, generator())
        a, b = (outputs(net, log_scores(p)) for p in (logits.softmax(1), released))
        gaps.append(float((a - b).square().mean()))
    assert np.all(np.diff(gaps) > 0), gaps


def test_a_track_that_teaches_nothing_is_told_so():
    with pytest.raises(UserError, match="inversion network is missing"):
        AdversarialNoise(strength=0.1).release(torch.zeros(2, 3), generator())


def test_a_classifier_that_is_asked_for_its_classes_uses_it_too():
    """The classifier track: what it learnt stands with the target, and scores by query go through it."""
    track, defense = get_track("classifier"), AdversarialNoise(strength=0.5, pairs=100, epochs=1, width=4)
    small = scenario(track="classifier", model={"name": "cnn", "width": 4}, training={"epochs": 1}, protocol={})
    own = track.train_target(small, defense, data(), 0, quiet)
    x = data().public.images(slice(6))
    plain, noisy = (track.oracle(small, own.released, None, "BB-S", by, 0).scores(x) for by in (NONE, defense))
    assert own.released["defense"]["params"]["learned"]
    assert torch.equal(plain, noisy)  # what belongs to the target acts, whatever else is asked for
    unnoised = track.oracle(small, {**own.released, "defense": PLAIN}, None, "BB-S", NONE, 0).scores(x)
    assert not torch.equal(noisy, unnoised)
    assert torch.equal(noisy.argmax(1), unnoised.argmax(1))


def test_top_k_counts():
    logits = torch.randn(5, 10, generator=generator())
    for k in (1, 3, 10):
        kept = TopK(strength=1 / k).release(logits, generator())
        assert ((kept > 0).sum(1) == k).all()
    assert torch.equal(TopK().release(logits, generator()), logits.softmax(1))
