"""Numerics: what is set and when, what a seed of the run moves, and the bits that are published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inversionbench.core import numerics
from inversionbench.core.errors import UserError
from inversionbench.plan.dag import Plan
from inversionbench.plan.params import check, read
from inversionbench.workflow import runner

ROOT = Path(__file__).parents[1]
MINI = ROOT / "tests" / "workflow" / "mini.yaml"
pytestmark = pytest.mark.skipif(not numerics.possible(), reason="portable numerics are of x86-64 with AVX2")


def run(*command: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, whose environment says nothing of numerics but `more`."""
    env = {k: v for k, v in os.environ.items() if k not in numerics.PORTABLE} | more
    done = subprocess.run([sys.executable, "-W", "error::ImportWarning", *command], cwd=ROOT, env=env, text=True,
                          capture_output=True)  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def prints(code: str, **more: str) -> object:
    return json.loads(run("-c", code, **more).stdout)


@pytest.mark.recorded
def test_this_machine_computes_the_published_bits() -> None:
    said = run("-m", "inversionbench", "selfcheck", check=False)
    assert said.returncode == 0, said.stdout
    assert said.stdout.endswith("this machine computes the published bits\n")
    assert not said.stderr


def test_commands_choose_before_numpy_is_loaded() -> None:
    """Nothing that the command line imports before it has read the parameters may load NumPy or torch."""
    code = ("import json, sys; from inversionbench.core import numerics; from inversionbench.workflow import cli; "
            "cli._params(cli._parser().parse_args(['--params', '{}', 'check'])); "
            "print(json.dumps([numerics.active(), 'numpy' in sys.modules, 'torch' in sys.modules]))")
    assert prints(code.format(MINI)) == ["portable", False, False]


def test_native_leaves_the_environment_alone_but_for_an_inherited_choice() -> None:
    code = ("import json, os; from inversionbench.core import numerics as n; n.apply('native'); "
            "print(json.dumps([n.active(), {k: os.environ[k] for k in n.PORTABLE if k in os.environ}]))")
    assert prints(code, MKL_CBWR="AVX2") == ["native", {"MKL_CBWR": "AVX2"}]
    assert prints(code, **numerics.PORTABLE) == ["native", {}]


def test_too_late_is_said() -> None:
    done = run("-c", "import numpy; from inversionbench.core import numerics as n; n.apply('portable')", check=False)
    assert "must be chosen before the import of numpy" in done.stderr


def test_square_roots_are_correctly_rounded_in_every_form() -> None:
    """torch's own differ from the correct one in 18 of 100 float32 values on an AMD processor, and from maker to
    maker; gradients, vmap and foreach must come to the same."""
    code = """
import json
from inversionbench.core import numerics
numerics.apply("portable")
import numpy as np, torch
x = torch.rand(9000, generator=torch.Generator().manual_seed(0)) + 0.5
right = torch.from_numpy(np.sqrt(x.double().numpy())).float()
forms = [x.sqrt(), x.clone().sqrt_(), torch.sqrt(x, out=torch.empty(0)), torch._foreach_sqrt([x])[0],
         torch.func.vmap(torch.sqrt)(x.view(90, 100)).flatten(), x.view(90, 100).T.sqrt().T.flatten(),
         torch.stack([x, x], 1)[:, 0].sqrt()]
same = [bool((f == right).all()) for f in forms]
p = x.clone().requires_grad_()
g, = torch.autograd.grad(p.sqrt().sum(), p, create_graph=True)
h, = torch.autograd.grad(g.sum(), p)
same += [bool(torch.allclose(g, 0.5 / right)), bool(torch.allclose(h, -0.25 * x ** -1.5))]
odd = torch.tensor([-1.0, 0.0]).sqrt()
kinds = [torch.tensor([2, 4]).to(d).sqrt().dtype for d in (torch.int64, torch.bfloat16, torch.float64, torch.complex64)]
print(json.dumps([same, bool(odd[0].isnan() and odd[1] == 0), [str(k) for k in kinds]]))
"""
    same, odd, kinds = prints(code)
    assert all(same), same
    assert odd
    assert kinds == ["torch.float32", "torch.bfloat16", "torch.float64", "torch.complex64"]


def test_a_record_says_which_it_was() -> None:
    code = ("import json; from inversionbench.core import numerics as n; n.apply('{}'); "
            "print(json.dumps(n.provenance()))")
    assert prints(code.format("portable")) == {"numerics": "portable"}
    native = prints(code.format("native"))
    assert native["numerics"] == "native"
    assert native["processor"].startswith("x86_64 ")


def test_wrong_values_get_the_nearest() -> None:
    raw = dict(read(MINI).raw)
    for key, value, said in (("compute", {"numerics": "nativ"}, "did you mean 'native'?"), ("seed", -1, "seed: -1"),
                             ("compute", {"numeric": "native"}, "did you mean 'numerics'?")):  # fmt: skip
        with pytest.raises(UserError) as error:
            check({**raw, key: value})
        assert said in str(error.value)


def test_every_rule_depends_on_numerics_and_seed() -> None:
    raw = dict(read(MINI).raw)
    plain, native, shifted = (Plan({**raw, **more}) for more in ({}, {"compute": {"numerics": "native"}}, {"seed": 1}))
    assert Plan({**raw, "seed": 0, "compute": {"numerics": "portable"}}).survey() == plain.survey()
    rules = {"prepare": ("dosing",), "train_target": ("dosing_tree", "none"), "train_evaluator": ("dosing_imputers",),
             "attack": ("dosing_tree/mi_attribute/none",), "evaluate": ("dosing_tree/mi_attribute",), "survey": ()}
    for rule, given in rules.items():
        assert len({getattr(plan, rule)(*given)["config"] for plan in (plain, native, shifted)}) == 3, rule


@pytest.mark.recorded
def test_seed_0_is_as_it_was_and_another_is_another(tmp_path: Path) -> None:
    params = replace(read(MINI), results=tmp_path)
    other = replace(params, results=tmp_path / "other", seed=1)
    assert runner.seed_of(params, "photos", "target", 0) == 2418410738879566167
    assert runner.seed_of(other, "photos", "target", 0) != runner.seed_of(params, "photos", "target", 0)
    for given in (params, other):
        runner.prepare(given, "dosing")
        runner.train_target(given, "dosing_tree", "none", 0.0)
    x, y = (np.load(given.folder / "data/dosing/private/x.npy") for given in (params, other))
    assert x.shape == y.shape
    assert (x != y).any()
    a, b = (torch.load(given.folder / "targets/dosing_tree/none/0/truth/0.pt") for given in (params, other))
    assert str(a) != str(b)
