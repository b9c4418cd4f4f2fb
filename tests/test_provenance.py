"""A digest changes when code that a rule runs changes, and not when other code does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inversionbench.core import provenance

PACKAGE = Path(provenance.__file__).parents[1]
SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
from inversionbench.core.provenance import code_digest
print(code_digest("inversionbench.tracks.tabular.attacks.mi_attribute"),
      code_digest("inversionbench.tracks.tabular.track:train_target"),
      code_digest("inversionbench.tracks.tabular.track:evaluate"))
"""


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "inversionbench", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def digests(copy: Path) -> list[str]:
    out = subprocess.run([sys.executable, "-c", SCRIPT, str(copy)], capture_output=True, text=True, check=True)
    return out.stdout.split()


@pytest.mark.parametrize(
    ("module", "moves"),
    [
        ("tracks/tabular/attacks/_posterior.py", (True, False, False)),  # imported by the attack only
        ("tracks/tabular/target.py", (False, True, False)),  # imported inside train_target
        ("tracks/tabular/evaluate.py", (False, False, True)),
        ("oracle/base.py", (True, None, None)),
        ("tracks/federated/attacks/__init__.py", (False, False, False)),
        ("survey/words.py", (False, False, False)),
    ],
)
def test_an_edit_moves_exactly_the_digests_of_what_runs_it(copy, module, moves):
    before = digests(copy)
    path = copy / "inversionbench" / module
    path.write_text(path.read_text() + "\n# edited\n")
    after = digests(copy)
    for old, new, moved in zip(before, after, moves):
        if moved is not None:
            assert (old != new) == moved


def test_digest_of_a_configuration_ignores_the_order_of_keys():
    assert provenance.config_digest({"a": 1, "b": 2}) == provenance.config_digest({"b": 2, "a": 1})
    assert provenance.config_digest({"a": 1}) != provenance.config_digest({"a": 2})


def test_unknown_function_is_an_error():
    with pytest.raises(ValueError, match="no function 'nothing'"):
        provenance.code_digest("inversionbench.tracks.tabular.track:nothing")


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        ("SERVICE = (", "SERVICE = (None, ", {"oracle"}),  # a constant that only the oracle reads
        ("    with torch.random.fork_rng(devices=[]):\n", "    if True:\n", {"oracle", "evaluate"}),  # in `network`
        ("        return Judges(state)", "        return Judges({**state})", {"load_evaluator"}),
        ('("budget", "decimals", "halves"', '("halves"', set()),  # read by `check` alone
    ],
)
def test_of_a_module_that_holds_many_steps_counts_what_a_step_uses(monkeypatch, tmp_path, old, new, moves):
    steps = ("train_target", "oracle", "evaluate", "load_evaluator")
    text = (PACKAGE / "tracks" / "classifier" / "track.py").read_text()
    assert text.count(old) == 1
    found = []
    for name, source in (("before.py", text), ("after.py", text.replace(old, new))):
        (tmp_path / name).write_text(source)
        monkeypatch.setattr(provenance, "_path", lambda module, path=tmp_path / name: path)
        found.append({step: provenance._function("inversionbench.tracks.classifier.track", step)[0] for step in steps})
    assert {step for step in steps if found[0][step] != found[1][step]} == moves
