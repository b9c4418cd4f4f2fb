"""Federated attacks on another device: nothing stays behind on the CPU, and answers are those of the CPU.

The device is pretended (`pretend_device`), so no GPU is needed; any tensor left on the CPU raises in the operation
that meets it, as it would on a GPU.
"""

from __future__ import annotations

import copy
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from inversion_cells import TRACK, data, oracle_of, scenario, target

from inversionbench.core import records, registry
from inversionbench.core.attack import Reconstruction
from inversionbench.models.style_prior import StylePrior
from inversionbench.plan import cells, params
from inversionbench.priors.style import Style
from inversionbench.tracks import get_track
from inversionbench.workflow import runner

sys.path.append(str(Path(__file__).parents[1]))
from pretend_device import PLACE, Held, Pretend

BIASED = {"name": "lenet", "channels": 4}
NORMED = {"name": "convnet", "widths": [4, 8, 8], "norm": "batch"}
FEW = {"steps": 4}
LATER = {"sends": "delta", "epochs": 2, "local_batch": 1, "local_rate": 0.1}
OF_TWO = {"batch_size": 2}
ENCODER = {"encoder": "private", "width": 4, "hidden": 8, "spread": 1.0}
NOISE = {"noise": "gaussian", "noise_std": 1e-3, "clip": 1.0}

CASES = {  # name -> attack, parameters, model, protocol, what the defense declares
    **{f"inverting_gradients, {form}":
       ("inverting_gradients", {**FEW, "restarts": 2, "form": form}, "convnet", OF_TWO, {})
       for form in ("auto", "im2col", "grouped", "vmap", "loop")},
    **{f"inverting_gradients, steps, {form}":
       ("inverting_gradients", {**FEW, "form": form}, "convnet", {**OF_TWO, **LATER}, {}) for form in ("auto", "vmap")},
    **{f"inverting_gradients, {name}": ("inverting_gradients", FEW, {"name": name}, {}, {})
       for name in ("resnet8", "mlp", "vit")},
    **{f"inverting_gradients, {init}": ("inverting_gradients", {**FEW, "init": init}, BIASED, {}, {})
       for init in ("rand", "zeros", "patterned")},
    **{f"inverting_gradients, {rule}":
       ("inverting_gradients", {**FEW, "label_rule": rule}, "convnet", {**OF_TWO, "labels": "hidden"}, {})
       for rule in ("bias_corrected", "geng", "ilrg")},
    "inverting_gradients, mask": ("inverting_gradients", {**FEW, "match": "mask"}, "convnet", {}, {}),
    "inverting_gradients, bfloat16": ("inverting_gradients", {**FEW, "precision": "bfloat16"}, "convnet", {}, {}),
    "coefficients": ("inverting_gradients", {**FEW, "match": "coefficients"}, BIASED, {},
                     {"transform": "dct", "sparsity": 0.5, "keep": "low"}),
    "wrong_gradient": ("wrong_gradient", FEW, "convnet", {}, {}),
    "dlg": ("dlg", {"steps": 1, "restarts": 2}, BIASED, {"labels": "hidden"}, {}),
    "idlg": ("idlg", {"steps": 1}, BIASED, {}, {}),
    "gradinversion": ("gradinversion", {**FEW, "period": 1, "seeds": 2}, NORMED, {**OF_TWO, "bn": "train_shared"}, {}),
    "gradinversion, running": ("gradinversion", FEW, NORMED, {}, {}),
    "ggi": ("ggi", {"steps": 3, "restarts": 2, "sphere": True}, "convnet", {}, {}),
    "gifd": ("gifd", {"steps": 2, "stages": 1, "restarts": 1}, "convnet", {}, {}),
    "gi_nas": ("gi_nas", {"candidates": 3, "levels": 2, "width": 8, "steps": 3}, "convnet", {}, {}),
    "agic": ("agic", FEW, "convnet", {"rounds": 2}, {}),
    "bayes": ("bayes", {**FEW, "draws": 2, "tune": 1}, "convnet", OF_TWO, NOISE),
    "bayes, laplace": ("bayes", {**FEW, "tune": 1}, "convnet", {}, {**NOISE, "noise": "laplace"}),
    "rgcir": ("rgcir", FEW, "convnet", {}, {}),
    "sgi": ("sgi", {**FEW, "bn": 0.1}, NORMED, {**OF_TWO, "bn": "train_shared", "labels": "hidden"}, {}),
    "concealed_batch": ("concealed_batch", FEW, "convnet", OF_TWO,
                        {"added": 1, "sensitive": 1, "kind": "mixed", "mix": 0.5}),
    "invert_transform": ("invert_transform", FEW, "convnet", {},
                         {"policy": "rotate", "amounts": {"rotate": 9.0}}),
    "inverting_sum": ("inverting_sum", FEW, "convnet", {}, {"groups": [[0, 7], [1, 8]]}),
    "skip_bottleneck": ("skip_bottleneck", FEW, {"name": "mlp"}, {}, {}),
    "skip_bottleneck, matched": ("skip_bottleneck", {**FEW, "exact": False}, "convnet", {}, {}),
    "surrogate_encoder": ("surrogate_encoder", {**FEW, "fit": 2, "size": 4}, "convnet", {}, ENCODER),
    "two_image": ("two_image", FEW, "convnet", {}, {"member": "mix"}),
    "learning_to_invert": ("learning_to_invert", {"pairs": 40, "features": 64, "hidden": 16, "epochs": 2, "size": 8},
                           BIASED, OF_TWO, NOISE),
    "learning_to_invert, ridge": ("learning_to_invert", {"pairs": 40, "features": 64, "inverter": "ridge"}, BIASED,
                                  {}, {}),
    "egia, analytic": ("egia", {}, {"name": "mlp"}, OF_TWO, {}),
    "egia, search": ("egia", {**FEW, "route": "search", "access": "GR-D"}, "convnet", {}, {}),
    "egia, follow": ("egia", {**FEW, "route": "search"}, "convnet", {"rounds": 2}, {}),
}  # fmt: skip


@cache
def _prior():
    torch.manual_seed(0)
    recipe = Style(z_dim=8, w_dim=8, channels=(8, 8, 8))
    return StylePrior(recipe.networks(data().shape)[0].requires_grad_(False), None, 8, torch.zeros(8), torch.ones(8))


def _run(name, options, model, protocol, declared) -> Reconstruction:
    """One attack, as it hands its answer over."""
    s = scenario(model, subjects=2, **protocol)
    made = registry.get("attack", name)(**options)
    released = {**target(s).released, "defense": declared}
    known = TRACK.knowledge(s, released, data().public, {"shape": data().shape}, copy.deepcopy(_prior()))
    level = made.level if isinstance(made.level, str) else made.access
    return made.run(oracle_of(s, level=level), known, torch.Generator().manual_seed(7))


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setenv("INVERSIONBENCH_DEVICE", PLACE.type)


@pytest.mark.parametrize("case", CASES)
def test_runs_on_the_device_and_finds_what_the_cpu_finds(case, monkeypatch):
    monkeypatch.setenv("INVERSIONBENCH_DEVICE", "cpu")
    there = _run(*CASES[case])
    monkeypatch.setenv("INVERSIONBENCH_DEVICE", PLACE.type)
    with Pretend():
        found = _run(*CASES[case])
        assert isinstance(found.data, Held)
        assert found.data.device == PLACE
        here = found.cpu()
    parts = [here.data, here.labels, *(t for t in (here.scores, here.failed) if t is not None)]
    assert not any(isinstance(t, Held) for t in [*parts, *(x for _, x in here.checkpoints)])
    torch.testing.assert_close(here.data, there.data, rtol=1e-4, atol=1e-4)
    assert torch.equal(here.labels, there.labels)
    assert here.cost == there.cost
    assert [n for n, _ in here.checkpoints] == [n for n, _ in there.checkpoints]


def test_label_rules_stay_on_the_cpu(device):
    s = scenario(subjects=2, ask="labels", labels="hidden")
    made = registry.get("attack", "label_recovery")(rule="geng")
    with Pretend():
        found = made.run(oracle_of(s), TRACK.knowledge(s, target(s).released, data().public, {"shape": data().shape},
                                                       None), torch.Generator())  # fmt: skip
    assert not isinstance(found.data, Held)
    assert not made.on_device


def test_a_cell_is_saved_on_the_cpu_and_names_its_device(device, tmp_path):
    model = {"name": "convnet", "widths": [4, 8]}
    here = params.check({
        "scale": "device", "results": str(tmp_path), "datasets": {"photos": {"private": 4, "public": 2}},
        "scenarios": {"cell": {"track": "federated", "dataset": "photos", "model": model, "protocol": {},
                               "subjects": 2, "seeds": [0]}},
        "attacks": {"inverting_gradients": {"params": {"steps": 2}}}, "defenses": {},
    })  # fmt: skip
    runner.prepare(here, "photos")
    runner.train_target(here, "cell", "none", 0.0)
    group = cells.find(here, "cell/inverting_gradients/none")
    with Pretend():
        runner.attack(here, group)
    (file,) = tmp_path.rglob("reconstruction.pt")
    saved = torch.load(file, weights_only=True)
    assert saved["device"] == PLACE.type
    assert saved["answer"]["data"].device.type == "cpu"
    runner.evaluate(here, [group])
    (record,) = records.load(records.find(tmp_path))
    assert record["provenance"]["device"] == PLACE.type
    assert not get_track("tabular").on_device
    assert not get_track("text").on_device


@pytest.mark.recorded  # a shifted generator is one of ours, which it does not know
def test_the_pretended_device_refuses_what_a_gpu_refuses():
    with Pretend():
        x, y = torch.ones(3).to(PLACE), torch.ones(3)
        assert isinstance(x + 1, Held)
        assert isinstance(x[y.long() * 0], Held)
        assert float((x * torch.tensor(2.0)).sum()) == 6
        for wrong in (lambda: x + y, lambda: y[x.long()], lambda: x.numpy(), lambda: torch.cat([x, y]),
                      lambda: x.normal_(generator=torch.Generator())):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
        x.mul_(2)
        assert x.cpu().tolist() == [2.0, 2.0, 2.0]
