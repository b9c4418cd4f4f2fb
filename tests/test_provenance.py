"""A digest changes when code that a rule runs changes, and not when other code does."""

from __future__ import annotations

import ast
import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inversionbench.core import provenance
from inversionbench.plan.dag import Plan
from inversionbench.plan.params import read as parameters
from inversionbench.tracks import get_track

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
    path.write_text(path.read_text() + "\nEDITED = True\n")
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
        source = provenance._function.__wrapped__  # nothing cached
        found.append({step: source("inversionbench.tracks.classifier.track", step)[0] for step in steps})
    assert {step for step in steps if found[0][step] != found[1][step]} == moves


# --- the whole plan of the default scale --------------------------------------------------------------------------


EVERY = (PACKAGE.parents[1] / "params.yaml", PACKAGE.parents[1] / "workflow/scales/survey.yaml")
PLAN = Plan(parameters(*EVERY).raw)


def plan(change: str = "", *edited: str) -> dict[str, str]:
    """Job -> digest of its code, with a text appended to some files of the package."""
    files = {PACKAGE / name for name in edited}
    assert all(path.is_file() for path in files)
    provenance.code_digest.cache_clear()
    provenance._function.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        read, cached = Path.read_text, {name: getattr(provenance, name) for name in ("syntax", "_tree", "_imports")}
        patch.setattr(Path, "read_text", lambda self, *a: read(self, *a) + (change if self in files else ""))
        for name, known in cached.items():
            new = functools.cache(known.__wrapped__)
            patch.setattr(provenance, name, lambda path, *a, known=known, new=new: (
                new(path, *a) if path in files else known(path, *a)))  # fmt: skip
        out = {f"attack {key}": PLAN.attack(key)["code"] for key in PLAN.groups}
        out |= {f"evaluate {key}": PLAN.evaluate(key)["code"] for key in {k.rpartition("/")[0] for k in PLAN.groups}}
        out |= {f"target {s}/{d}": PLAN.train_target(s, d)["code"] for s, d, _ in PLAN.targets}
        out |= {f"evaluator {j}": PLAN.train_evaluator(j)["code"] for j in PLAN.judges}
        for path in PLAN.priors:
            *_, scenario, defense, _, prior = Path(path).parts
            of_target = f"{PLAN.folder}/priors/targets/" in f"{path}/"
            made = PLAN.train_target_prior(scenario, defense, prior) if of_target else PLAN.train_prior(prior)
            out[f"prior {Path(path).relative_to(PLAN.folder / 'priors')}"] = made["code"]
        out["survey"] = PLAN.survey()["code"]
        return out | {f"data {d}": PLAN.prepare(d)["code"] for d in PLAN.datasets}


PLAIN = plan()


def again(*modules: str) -> set[str]:
    """The jobs that more code in these modules runs again."""
    now = plan("\n_MORE = 1\n", *modules)
    return {job for job, code in PLAIN.items() if now[job] != code}


def test_prose_runs_nothing_again():
    every = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]
    assert plan("\n# why this is so\n", *every) == PLAIN
    said = "'Says.'\nx = 1  # why\nclass A:\n 'Is.'\n y = 2\n def f(self):\n  'Does.'\n  return 3"
    plain = "x = 1\nclass A:\n y = 2\n def f(self):\n  return 3"
    assert ast.dump(provenance._bare(ast.parse(said))) == ast.dump(ast.parse(plain))


def test_bookkeeping_runs_nothing_again():
    """But the tables, which are made by it and take seconds."""
    kept = [f"core/{name}.py" for name in ("catalogue", "errors", "files", "provenance", "records", "registry")]
    kept += [path.relative_to(PACKAGE).as_posix() for d in ("plan", "survey") for path in (PACKAGE / d).glob("*.py")]
    kept += [path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "workflow").glob("*.py")]
    assert again(*kept, "data/sources.py", "data/_download.py") == {"survey"}
    assert again("core/records.py") == again("survey/galleries.py") == {"survey"}
    assert again("workflow/tracking.py") == set()


def test_everything_left_out_is_there():
    """A name of `BOOKKEEPING` that nothing has any more would leave out nothing."""
    for name in provenance.BOOKKEEPING:
        module, _, function = name.partition(":")
        path = provenance._path(module)
        assert path, name
        assert not function or function in provenance._definitions(provenance._tree(path)), name


def test_a_real_change_runs_its_users_again_and_nothing_else():
    scenarios = {s.name: s.track for s in PLAN.params.scenarios.values()}

    def of(kind: str, wanted) -> set[str]:
        return {job for job in PLAIN if job.startswith(kind) and wanted(job.split(" ")[1].split("/"))}

    attacks = {name: entry.method for name, entry in PLAN.params.attacks.items()}
    assert again("tracks/federated/attacks/dlg.py") == of("attack", lambda key: attacks[key[1]] == "dlg")
    for metric in ("mse", "ssim", "avd"):  # found by their names; what trains against a likeness imports it
        tracks = {track for track in scenarios.values() if metric in get_track(track).metrics}
        found = {job for job in again(f"metrics/{metric}.py") if job.startswith("evaluate")}
        assert found == of("evaluate", lambda key, tracks=tracks: scenarios[key[0]] in tracks)
    images = of("evaluate", lambda key: scenarios[key[0]] == "federated")
    others = again("metrics/psnr.py") - images
    tuned = {name for name, track in scenarios.items() if track == "split"}
    rest = [job for job in others if not job.startswith(("evaluate", "survey"))]
    assert {job.split(" ")[1].split("/")[0] for job in rest} <= tuned
    assert again("metrics/_aggregate.py") >= of("evaluate", lambda key: True)  # intervals
    searched = of("attack", lambda key: scenarios[key[0]] == "classifier")  # they search priors, which it measures
    assert again("metrics/fid.py") <= of("prior", lambda key: True) | searched
    assert not again("oracle/tabular.py") & of("attack", lambda key: scenarios[key[0]] == "federated")
    every = again("core/attack.py")
    assert every >= of("attack", lambda key: True)
    federated = again("gradients/matching.py")
    attacked = {job.split(" ")[1].split("/")[0] for job in federated if job.startswith("attack")}
    assert {scenarios[name] for name in attacked} == {"federated"}
    assert of("target", lambda key: True) <= again("core/defense.py")
    assert again("data/photos.py") == {"data photos", "data small_photos"}
    assert again("core/numerics.py") == PLAIN.keys()
    assert again("priors/dcgan.py") >= of("prior", lambda key: key[-1] == "dcgan") != set()
