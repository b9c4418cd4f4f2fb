"""Every attack against what it must beat, and the properties that make it the method it claims to be."""

import numpy as np
import pytest
import torch
from federated_cells import CONVNET, LENET, evaluate, generator, psnr, reconstruct, scenario, target, through_a_file

from inversionbench.core.attack import Reconstruction
from inversionbench.defenses.gradient_pruning.dgc import Dgc

# attack, parameters, victim, protocol, what it must beat, by how many dB (a control, or another attack)
TABLE = [
    ("inverting_gradients", {"steps": 100}, CONVNET, {}, "wrong_gradient", 5.0),
    ("inverting_gradients", {"steps": 100}, CONVNET, {"batch_size": 4}, "mean_image", 1.0),
    ("inverting_gradients", {"steps": 100}, CONVNET,
     {"batch_size": 2, "sends": "delta", "local_batch": 1, "local_rate": 0.1}, "mean_image", 1.5),
    ("dlg", {"steps": 25}, LENET, {"labels": "hidden"}, "mean_image", 8.0),  # failures have 20 dB, successes 60
    ("idlg", {"steps": 25}, LENET, {"labels": "hidden"}, "mean_image", 8.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "net", "protocol", "baseline", "margin"), TABLE)
def test_attacks_beat_their_baselines(name, params, net, protocol, baseline, margin):
    """Mean over three networks. Gains over four seeds, in the order of the table: 7.8 dB (sd 0.4), 2.7 (0.5), 3.8
    (0.5), 32 (4), 40 (3); the baselines gain 0."""
    where, gains = scenario(net, subjects=6, **protocol), []
    for seed in range(3):
        made = target(where, seed=seed)
        done = evaluate(where, made, reconstruct(where, made, name, **params))
        if baseline in done.controls:
            floor = float(done.controls[baseline]["psnr"].mean())
        else:
            floor = psnr(where, made, reconstruct(where, made, baseline, **params))
        gains.append(float(done.metrics["psnr"].mean()) - floor)
    assert sum(gains) / 3 > margin


def test_the_table_is_able_to_fail():
    """An attack that returns what it started from does not pass."""
    where = scenario(CONVNET)
    made = target(where)
    idle = reconstruct(where, made, "inverting_gradients", steps=1, rate=0.0)
    assert psnr(where, made, idle) < psnr(where, made, reconstruct(where, made, "wrong_gradient", steps=60)) + 5


def test_successes_of_dlg_are_exact_and_idlg_reads_every_label():
    where = scenario(LENET, subjects=6, labels="hidden")
    made = target(where, seed=1)
    dlg = reconstruct(where, made, "dlg", steps=30)
    idlg = reconstruct(where, made, "idlg", steps=30)
    assert torch.equal(idlg.labels, made.truth["labels"])
    values = {n: np.sort(evaluate(where, made, r).metrics["psnr"]) for n, r in (("dlg", dlg), ("idlg", idlg))}
    assert min(v[-1] for v in values.values()) > 50  # successes are exact
    rng = generator()
    for sent in made.released["updates"]["client"].values():
        sent.add_(0.03 * torch.randn(sent.shape, generator=rng))
    noisy = evaluate(where, made, reconstruct(where, made, "dlg", steps=30)).metrics["psnr"]
    assert max(noisy) < 30  # what noise leaves is no success
    budgets = [n for n, _ in dlg.checkpoints]  # trials that have converged or left the numbers cost nothing more
    assert 0 < budgets[0] < budgets[-1] <= dlg.cost["gradient_evaluations"]


def test_on_a_trained_network_with_relu_the_cosine_goes_further():
    """At the same number of gradients: by 5.8 dB (sd 0.8 over four seeds), itself by 0; 3 are asked for."""
    where = scenario(CONVNET, subjects=8, training={"rounds": 20, "clients": 4, "batch": 10})
    made = target(where)
    cosine, squared = (
        np.median(evaluate(where, made, reconstruct(where, made, name, steps=steps)).metrics["psnr"])
        for name, steps in (("inverting_gradients", 300), ("dlg", 15))
    )
    assert cosine > squared + 3


@pytest.mark.parametrize("name", ["inverting_gradients", "dlg"])
def test_the_scale_of_the_update_matters_only_to_squared_distances(name):
    where = scenario(CONVNET if name == "inverting_gradients" else LENET, subjects=2)
    made = target(where)
    params = {"steps": 20 if name == "inverting_gradients" else 4}
    plain = reconstruct(where, made, name, **params)
    made.released["updates"]["client"] = {n: 8 * t for n, t in made.released["updates"]["client"].items()}
    scaled = reconstruct(where, made, name, **params)
    assert torch.allclose(plain.data, scaled.data, atol=1e-4) == (name == "inverting_gradients")


def test_larger_batches_are_harder():
    """What is gained over the mean image falls by 3.1 dB (sd 0.4 over four seeds) from one image to seven."""
    gains = []
    for batch in (1, 7):
        where, over = scenario(CONVNET, subjects=5, batch_size=batch), []
        for seed in range(3):
            made = target(where, seed=seed)
            done = evaluate(where, made, reconstruct(where, made, "inverting_gradients", steps=100))
            over.append(float(done.metrics["psnr"].mean() - done.controls["mean_image"]["psnr"].mean()))
        gains.append(sum(over) / 3)
    assert gains[0] > gains[1] + 1.4


def test_the_same_seed_gives_the_same_bytes():
    where = scenario(subjects=2)
    made = target(where)
    first, again, other = (reconstruct(where, made, "inverting_gradients", seed=s, steps=10) for s in (0, 0, 1))
    assert torch.equal(first.data, again.data)
    assert not torch.equal(first.data, other.data)


def test_a_saved_target_gives_the_same_answer():
    where = scenario(subjects=2)
    made = target(where)
    first = reconstruct(where, made, "inverting_gradients", steps=10)
    made.released = through_a_file(made.released)
    assert torch.equal(first.data, reconstruct(where, made, "inverting_gradients", steps=10).data)
    through_a_file(made.truth)


@pytest.mark.parametrize("form", ["loop", "vmap", "im2col", "grouped"])
def test_forms_reconstruct_alike(form):
    where = scenario(subjects=2)
    made = target(where)
    plain = reconstruct(where, made, "inverting_gradients", steps=6)
    other = reconstruct(where, made, "inverting_gradients", steps=6, form=form)
    assert torch.allclose(plain.data, other.data, atol=1e-3)
    assert form in other.notes["form"]


def test_chunks_do_not_change_the_answer(monkeypatch):
    where = scenario(subjects=3)
    made = target(where)
    whole = reconstruct(where, made, "inverting_gradients", steps=8, restarts=2)
    monkeypatch.setattr("inversionbench.gradients.matching.BUDGET", 1)
    parts = reconstruct(where, made, "inverting_gradients", steps=8, restarts=2)
    assert (whole.notes["chunks"], parts.notes["chunks"]) == (1, 6)
    assert torch.allclose(whole.data, parts.data, atol=1e-3)
    assert whole.cost == parts.cost == {"gradient_evaluations": 48}


def test_restarts_never_match_worse():
    where = scenario(subjects=3)
    made = target(where)
    one = reconstruct(where, made, "inverting_gradients", steps=30)
    three = reconstruct(where, made, "inverting_gradients", steps=30, restarts=3)
    assert (three.scores <= one.scores + 1e-6).all()


def test_the_masked_attacker_gains_under_pruning():
    """By 1.8 dB (sd 0.27 over four seeds), without the mask 0; 0.9 are asked for."""
    where, defense = scenario(subjects=4), Dgc(strength=0.99)
    made = target(where, defense)
    naive, aware = (
        psnr(where, made, reconstruct(where, made, "inverting_gradients", defense=defense, steps=150, match=match))
        for match in ("plain", "mask")
    )
    assert aware > naive + 0.9


def test_the_labels_of_a_batch_can_be_recovered_instead():
    where = scenario(subjects=3, batch_size=4, labels="hidden")
    made = target(where)
    answer = reconstruct(where, made, "inverting_gradients", steps=3)
    done = evaluate(where, made, answer)
    assert answer.notes["labels"] == "bias_corrected"
    assert done.metrics["label_recovery"].mean() > 0.9
    given = evaluate(scenario(subjects=3), target(scenario(subjects=3)),
                     reconstruct(scenario(subjects=3), target(scenario(subjects=3)), "inverting_gradients", steps=2))
    assert "label_recovery" in given.unavailable


def test_evaluation_does_not_depend_on_the_order_in_a_batch():
    where = scenario(subjects=2, batch_size=4)
    made = target(where)
    answer = reconstruct(where, made, "inverting_gradients", steps=20)
    turned = Reconstruction(answer.data.flip(1), answer.labels.flip(1), notes=answer.notes)
    a, b = evaluate(where, made, answer), evaluate(where, made, turned)
    assert all(np.allclose(a.metrics[m], b.metrics[m]) for m in ("psnr", "ssim", "mse"))
    assert a.groups.tolist() == np.repeat(made.truth["index"][:, 0].numpy(), 4).tolist()


def test_failures_are_scored_as_noise():
    where = scenario(subjects=2)
    made = target(where)
    answer = reconstruct(where, made, "inverting_gradients", steps=3)
    answer.failed = torch.tensor([True, False])
    done = evaluate(where, made, answer)
    assert done.facts["failures"] == 1
    assert done.metrics["psnr"][0] < 12
    assert np.isfinite(done.metrics["psnr"]).all()


def test_controls_say_what_a_number_means():
    where = scenario(subjects=3)
    made = target(where)
    done = evaluate(where, made, reconstruct(where, made, "inverting_gradients", steps=2))
    assert set(done.controls) == {"mean_image", "random_image", "noise", "truth"}
    assert done.controls["truth"]["psnr"].mean() == 60
    assert done.controls["noise"]["psnr"].mean() < done.controls["mean_image"]["psnr"].mean()
    assert set(done.facts["label_rules"]) >= {"row_sum", "min_row", "ilrg", "bias"}
