"""Cheating attacks: what they try is refused or noted, and the ledger says what was really asked."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from inversionbench.core import registry
from inversionbench.core.attack import Knowledge
from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.oracle.base import InputSpec
from inversionbench.oracle.classifier import classifier_oracle
from inversionbench.oracle.guard import watched
from inversionbench.oracle.inspection import faults
from inversionbench.oracle.strict import served

SPEC = InputSpec((3,), low=-1.0, high=1.0)
X = torch.zeros(2, 3)


def network():
    return nn.Sequential(nn.Linear(3, 4)).eval().requires_grad_(False)


def oracle(level):
    return classifier_oracle(network(), level, SPEC, 4)


@pytest.fixture
def closed(tmp_path):
    """A folder with what no attack may see."""
    (tmp_path / "truth").mkdir()
    torch.save({"index": torch.arange(3)}, tmp_path / "truth" / "0.pt")
    np.save(tmp_path / "x.npy", np.zeros(3))
    return tmp_path


def frame_of_error(asked):
    try:
        asked.labels(X.double())
    except ValueError as error:
        return error.__traceback__.tb_frame


CHEATS = {
    "reads the truth": lambda folder, asked: torch.load(folder / "truth" / "0.pt"),
    "reads private arrays": lambda folder, asked: np.load(folder / "x.npy"),
    "maps private arrays": lambda folder, asked: np.load(folder / "x.npy", mmap_mode="r"),
    "lists the folder": lambda folder, asked: list(folder.rglob("*")),
    "opens by another name": lambda folder, asked: open(folder / "truth" / ".." / "x.npy", "rb"),  # noqa: SIM115
    "asks the garbage collector": lambda folder, asked: gc.get_objects(),
    "looks at its caller": lambda folder, asked: sys._getframe(1).f_locals,
    "looks at an error's frames": lambda folder, asked: frame_of_error(asked),
    "starts a process": lambda folder, asked: subprocess.run(["cat", str(folder / "x.npy")], check=True),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_is_refused_and_noted_even_if_it_hides_the_error(cheat, closed):
    asked = oracle("LO")
    with watched([closed]) as seen:
        try:
            CHEATS[cheat](closed, asked)
        except AccessDenied:
            pass
        else:
            raise AssertionError("went through")
    assert len(seen.refused) >= 1


def test_without_a_watch_nothing_is_refused(closed):
    for cheat in CHEATS.values():
        cheat(closed, oracle("LO"))


def test_an_honest_attack_is_left_alone_and_what_it_opens_is_noted(closed, tmp_path_factory, monkeypatch):
    own = tmp_path_factory.mktemp("own") / "notes.txt"
    own.write_text("mine")
    monkeypatch.setattr("tempfile.tempdir", str(closed))  # files of the temporary folder, as of pytest, are not noted
    asked = oracle("WB")
    with watched([closed / "truth"]) as seen:
        module = asked.module()
        x = X.clone().requires_grad_()
        module(x).sum().backward()
        torch.func.vmap(lambda v: module.model(v[None]))(X)
        own.read_text()
    assert seen.refused == []
    assert seen.opened == [str(own)]


def test_a_ledger_can_only_be_read():
    asked = oracle("LO")
    asked.labels(X)
    for tamper in (
        lambda: asked.ledger.rows.clear(),
        lambda: setattr(asked.ledger, "budget", None),
        lambda: asked.ledger.charge("labels", -2, "search"),
        lambda: setattr(asked.ledger, "_read", tuple),
    ):
        with pytest.raises((AccessDenied, AttributeError)):
            tamper()
    assert asked.ledger.queries == 2
    module = oracle("WB").module()
    module(X)
    with pytest.raises(AttributeError):
        module.ledger.rows.clear()
    assert module.ledger.passes == 2


def test_what_was_read_stays_read():
    knowledge = Knowledge(labels=torch.arange(3), public=None)
    assert knowledge.labels is not None
    with pytest.raises(AttributeError):
        knowledge.used.clear()
    assert knowledge.used == {"labels"}
    with pytest.raises(AccessDenied, match="grants labels, public, not 'truth'"):
        _ = knowledge.truth


def test_the_process_of_a_label_attack_does_not_hold_the_target():
    def make():
        torch.manual_seed(1)
        secret = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).eval()
        return classifier_oracle(secret, "LO", SPEC, 4)

    def held():
        return [o for o in gc.get_objects() if isinstance(o, nn.Tanh)]

    inside = make()
    assert held()  # it would be found
    del inside
    with served(make) as asked:
        assert asked.labels(X).shape == (2,)
        assert held() == []


def test_what_goes_wrong_in_the_other_process_is_said_here():
    def missing():
        raise UserError("0.pt is not there")

    with pytest.raises(UserError, match=r"0\.pt is not there"), served(missing):
        pass
    with served(lambda: oracle("LO")) as asked:
        for child in multiprocessing.active_children():
            child.kill()
        with pytest.raises((RuntimeError, OSError), match=r"has ended|pipe|reset"):
            asked.labels(X)


# --- what a method's file may import and call -----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(registry.methods("attack")))
def test_a_method_needs_nothing_that_leads_past_the_oracle(name):
    assert faults(registry.methods("attack")[name].path) == []


def test_shared_parts_of_attacks_need_nothing_either():
    engines = [p for engine in ("gradients", "latent") for p in (registry.PACKAGE / engine).glob("*.py")]
    shared = [*engines, *registry.PACKAGE.glob("tracks/*/attacks/_*.py")]
    assert {p.name: found for p in shared if (found := faults(p))} == {}


def test_the_look_at_files_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "cheat.py"
    path.write_text("import gc\nfrom inversionbench.data import load\nimport numpy as np\nnp.load('x')\nopen('y')\n"
                    "def f(o):\n    return o.labels.__closure__\n")  # fmt: skip
    assert len(faults(path)) == 5
