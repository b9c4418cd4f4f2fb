"""The scale of the papers: planned without data, built without memory, and it says what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from inversionbench.models.base import trace
from inversionbench.models.classifiers import build
from inversionbench.plan.dag import Plan
from inversionbench.plan.params import merge, read

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "workflow/scales/paper.yaml"
SIDES = {"celeba": 64, "facescrub_ffhq": 224}


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.delenv("INVERSIONBENCH_DATA", raising=False)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    return Plan(merge(params, yaml.safe_load(OVERLAY.read_text())))


def test_it_is_planned_without_data(plan):
    assert {"celeba", "facescrub", "ffhq", "facescrub_ffhq"} >= set(plan.datasets) >= {"celeba", "facescrub_ffhq"}
    assert plan.params.combined("facescrub_ffhq") == ("facescrub", "ffhq")
    assert plan.params.priors["style"].method == "stylegan2"
    assert plan.params.dataset("celeba")[1]["private_people"] == 1000
    assert plan.params.dataset("celeba")[1]["public"] == 30000
    celeba = [s for s in plan.params.scenarios.values() if s.dataset == "celeba"]
    assert [s.subjects for s in celeba] == [300] * 3
    attacked = {key.split("/")[1] for key in plan.groups}
    assert {"gmi", "kedmi", "plg_mi", "lomma_kedmi", "secretgen", "deepinversion", "ppa", "if_gmi", "lsmi"} <= attacked
    assert plan.outputs()


def test_what_computes_asks_for_an_accelerator_memory_and_time(plan):
    for rule in ("train_target", "train_evaluator", "train_prior", "train_target_prior", "attack"):
        wanted = plan.resources(rule)
        assert {"mem_mb", "runtime"} <= set(wanted)
        assert any("gpu" in name or "gres" in name for name in wanted), wanted


def test_its_networks_exist_and_take_its_images():
    """On the meta device: the real sizes, no memory."""
    params = read(ROOT / "params.yaml", OVERLAY)
    models = [(s.model, SIDES[s.dataset], 1000) for s in params.scenarios.values()]
    for given in (params.evaluators[name] for name in ("celeba_judges", "facescrub_judges")):
        models += [(given["options"][j]["model"], SIDES[given["dataset"]], 530) for j in ("first", "second")]
    assert {m["name"] for m, _, _ in models} >= {"vgg16_bn", "ir152", "facenet64", "facenet112", "resnet152",
                                                 "inception_v3", "resnet18"}  # fmt: skip
    for model, side, classes in models:
        with torch.device("meta"):
            net = build(model, (3, side, side), classes).eval()
            assert trace(net, torch.empty(2, 3, side, side)).logits.shape == (2, classes)


def test_attacks_have_the_settings_of_their_papers():
    params = read(ROOT / "params.yaml", OVERLAY)
    gmi = params.attacks["gmi"].parameters("celeba_vgg16")
    assert (gmi["iterations"], gmi["restarts"], gmi["rate"], gmi["identity_weight"]) == (1500, 5, 0.02, 100.0)
    assert params.attacks["kedmi"].parameters()["iterations"] == 2400
    assert params.attacks["secretgen"].parameters()["latents"] == 200
    ppa, stages = params.attacks["ppa"].parameters(), params.attacks["if_gmi"].parameters()
    assert (ppa["samples"], ppa["steps"], ppa["candidates"], ppa["restarts"]) == (2000, 50, 200, 50)
    assert stages["steps"] == [50, *[10] * 7]
    radii = (1000, 2000, 3000, 4000, 5000, 6000, 8000, 8000)
    sizes = [512 * 16, 512 * 64, 512 * 256, 512 * 1024, 512 * 4096, 256 * 16384, 128 * 65536]  # FFHQ, 4 to 256 pixels
    assert stages["style_radii"] == pytest.approx([r / 512 for r in radii], rel=2e-3)
    assert stages["radii"] == pytest.approx([r / d for r, d in zip(radii[1:], sizes, strict=True)], rel=2e-3)
    prior = params.priors["dcgan"].parameters()
    published = {"loss": "wgan_gp", "upsample": "transposed", "critic_steps": 5, "z_dim": 100}
    assert {name: prior[name] for name in published} == published
