"""The verifier: knows people it never learnt from, coarse pictures too, and is not convinced by texture.

Shares are of 48 pictures of 6 people among 12; measured figures are means and standard deviations over seed shifts 0
to 3. Noise and texture of one kind may look like one and the same person, who is right once in 6 at most.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from classifier_cells import PEOPLE, SUBJECTS, TRACK, data, evaluators, generator, judges, quiet, scenario, target
from torch.nn import functional as F

from inversionbench.core.attack import Reconstruction
from inversionbench.core.errors import UserError
from inversionbench.data.base import Part
from inversionbench.metrics.verified import FALSE_MATCHES, threshold, verified
from inversionbench.training import dlib_faces
from inversionbench.training._degrade import Linear, coarse, compressed, degrade, noisy
from inversionbench.training.evaluator_options import check_options
from inversionbench.training.perceptual import check_perceptual
from inversionbench.training.verifier import train_verifier, who

EACH = 8  # pictures of each person


def shares(x, y) -> dict[str, float]:
    return {name: float(hit.double().mean()) for name, hit in judges().galleries[""].scores(x, y).items()}


@functools.cache
def photographs():
    """Held-out photographs of the attacked people."""
    labels = data().heldout.labels()
    rows = torch.cat([(labels == c).nonzero()[:EACH, 0] for c in range(SUBJECTS)])
    return data().heldout.images(rows.numpy()), labels[rows]


def fooled(start, box: float):
    """Images within `box` of `start` that both evaluators take for the next attacked person: descent in the pixels."""
    y = (photographs()[1] + 1) % SUBJECTS
    x = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([x], 0.02)
    for _ in range(80):
        loss = sum(F.cross_entropy(net(x), y) for net in judges().nets)
        (x.grad,) = torch.autograd.grad(loss, x)
        optimiser.step()
        x.data = x.data.clamp(start - box, start + box).clamp(0, 1)
    return x.detach(), y


def halved(x):
    return F.interpolate(F.avg_pool2d(x, 2), x.shape[2:], mode="bilinear")


def test_it_knows_people_that_taught_it_nothing():
    """Chance 0.08, other people's photographs 0.00; measured 0.96 (0.07)."""
    assert shares(*photographs())["identified"] > 0.6


def test_it_knows_coarse_and_compressed_photographs():
    """Chance 0.08; measured 0.84 (0.11) at half the resolution, 0.95 (0.08) compressed."""
    x, y = photographs()
    assert shares(halved(x), y)["identified"] > 0.5
    assert shares(compressed(x, generator()), y)["identified"] > 0.5


@pytest.mark.parametrize(("of", "box"), [("nothing", 1.0), ("somebody else", 0.1)])
def test_an_attack_on_both_evaluators_does_not_convince_it(of, box):
    """Photographs of the claimed person: 0.96 (0.07). Measured 0.12 (0.13) from nothing, 0.05 (0.08) on photographs of
    somebody else; verified 0.00 and 0.02 (0.04) of them, 0.76 (0.24) of the photographs."""
    x, _ = photographs()
    images, y = fooled(torch.rand(x.shape, generator=generator()) if of == "nothing" else x, box)
    logits, _ = judges().see(images)
    assert torch.stack([own.argmax(1) == y for own in logits]).all(0).double().mean() > 0.8
    found = shares(images, y)
    assert found["identified"] < 0.5
    assert found["verified"] < 0.3


def test_noise_and_other_people_are_near_chance():
    """The claimed person: 0.96 (0.07). Measured 0.03 (0.04) and 0.00; verified 0.00."""
    x, y = photographs()
    for images, claimed in ((torch.rand(x.shape, generator=generator()), y), (x, (y + 1) % SUBJECTS)):
        found = shares(images, claimed)
        assert found["identified"] < 0.4
        assert found["verified"] < 0.2


def test_one_pair_in_a_hundred_of_other_people_is_verified():
    """For any similarities, those that set the threshold: at most the rate, and no threshold below it would do."""
    y = torch.arange(200) % 5
    seen = torch.randn(200, 5, generator=generator())
    limit = threshold(seen, y)
    shifted = [verified(seen, (y + k) % 5, limit) for k in range(1, 5)]
    rate = torch.stack(shifted).double().mean().item()
    assert FALSE_MATCHES - 2 / 800 < rate <= FALSE_MATCHES
    with pytest.raises(UserError, match="two people"):
        threshold(seen[:, :1], torch.zeros(200, dtype=torch.long))


def test_what_teaches_it_are_the_public_people_or_classes():
    x = np.zeros((6, 1, 8, 8), np.uint8)
    none = np.full(6, -1)
    people = Part(x, none, {"identity": np.array([7, 7, 9, 9, 12, 7])})
    assert who(people).tolist() == [0, 0, 1, 1, 2, 0]
    assert who(Part(x, none, {"label": np.array([5, 6, 5, 6, 5, 6])})).tolist() == [0, 1] * 3
    shared = Part(x, np.array([0, 1, 0, 1, 0, 1]), {"identity": np.arange(6)})  # patients, not what the classes are
    assert who(shared).tolist() == [0, 1] * 3
    assert "do not say whom they show" in who(Part(x, none))
    assert "several images of one" in who(Part(x, none, {"identity": np.arange(6)}))


def test_without_public_people_the_headline_is_unavailable_with_its_reason():
    blind = dataclasses.replace(data(), public=Part(data().public.x, data().public.y))
    state = {**evaluators(), "verifier": train_verifier(check_options({})["verifier"], blind, generator(), quiet)}
    answer = Reconstruction(*photographs())
    done = TRACK.evaluate(scenario(), answer, target(), data(), TRACK.load_evaluator(state), 3)
    for name in ("identified", "verified"):
        assert name not in done.metrics
        assert "do not say whom they show" in done.unavailable[name]
    assert "agreement" in done.metrics


def test_the_ceiling_stands_in_the_record():
    answer = Reconstruction(*photographs())
    done = TRACK.evaluate(scenario(), answer, target(), data(), judges(), 3)
    ceiling = done.facts["heldout"]["verifier"]["identified"]
    assert ceiling == pytest.approx(done.metrics["identified"].mean(), abs=0.25)
    assert done.facts["chance"] == 1 / PEOPLE


def test_degradation_keeps_what_an_image_is():
    """Same shape, within [0, 1], something lost, and the person's colours kept; some images are left as they are."""
    x = data().public.images(slice(0, 200))
    generator_ = Linear.of(x)
    for worsen in (coarse, noisy, compressed, generator_):
        worse = worsen(x, generator())
        assert worse.shape == x.shape
        assert 0 <= worse.min() <= worse.max() <= 1
        gap = (worse - x).square().mean()
        assert 0 < gap < x.var() / 2
    whole = (degrade(x, generator_, generator()) == x).flatten(1).all(1).double().mean()
    assert 0.1 < whole < 0.45  # a quarter
    assert coarse(x[:, :, :7, :7], generator()).shape == (200, 3, 7, 7)
    assert compressed(x[:, :, :7, :7], generator()).shape == (200, 3, 7, 7)


def test_options():
    full = check_options({"first": {"training": {"flip": True}}, "verifier": {"passes": 10}})
    assert full["verifier"]["training"]["flip"]
    assert full["verifier"]["passes"] == 10
    assert "dlib" not in full
    assert check_options({"dlib": {}})["dlib"] == {"crop": 0.875}
    assert "verifier" not in check_options({"verifier": None})
    assert check_perceptual({})["verifier"] is None
    for wrong, said in (({"verifier": {"passes": 0}}, "at least 1"), ({"verifier": {"widht": 1}}, "'width'"),
                        ({"dlib": {"crop": 2}}, "at most 1"), ({"verifier": {"training": {"rat": 1}}}, "rate")):
        with pytest.raises(UserError, match=said):
            check_options(wrong)


def test_without_dlib_its_columns_say_so(monkeypatch):
    monkeypatch.setattr(dlib_faces, "find_spec", lambda name: None)
    state = {**evaluators(), "dlib": dlib_faces.enrol_dlib({"crop": 1.0}, data())}
    done = TRACK.evaluate(scenario(), Reconstruction(*photographs()), target(), data(), TRACK.load_evaluator(state), 3)
    for name in ("dlib_identified", "dlib_verified"):
        assert "not installed" in done.unavailable[name]
    assert "identified" in done.metrics


def test_dlib_enrols_people():
    """Drawings are not what it learnt, but it does see that a private photograph is itself."""
    pytest.importorskip("dlib", reason="the extra `faces` is not installed")
    small = dataclasses.replace(
        data(), private=_first(data().private, 2 * PEOPLE), heldout=_first(data().private, 2 * PEOPLE)
    )
    state = dlib_faces.enrol_dlib({"crop": 1.0}, small)
    assert state["templates"].shape == (PEOPLE, 128)
    assert state["heldout"]["identified"] > 0.5


def test_dlib_refuses_other_weights(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "dlib_face_recognition_resnet_model_v1.dat").write_bytes(b"other")
    found = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(dlib_faces, "find_spec", lambda name: found)
    assert "not the declared file" in dlib_faces.weights().reason


def _first(part, n: int):
    return Part(part.x[:n], part.y[:n])
