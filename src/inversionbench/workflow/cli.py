"""The command line: one command for each rule of the workflow, and commands for people.

Heavy packages are imported by the commands that use them, so that `--help` and `list` answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inversionbench import __version__
from inversionbench.core import numerics
from inversionbench.core.errors import UserError, suggest
from inversionbench.core.files import refused

if TYPE_CHECKING:
    from inversionbench.plan.params import Params

SCALES = Path("workflow/scales")


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 is success, 2 bad input (said in one line, without a traceback)."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = _parser().parse_args(argv)
    try:
        return args.func(args) or 0
    except UserError as error:
        print(f"inversionbench: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output went away, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if not (said := refused(error)):
            raise
        print(f"inversionbench: {said}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inversionbench",
        description="Measures how much training data a model or a client's update gives away.",
    )
    parser.add_argument("--version", action="version", version=f"inversionbench {__version__}")
    _choice(parser, "params.yaml", None)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _people(commands)
    _steps(commands)
    from inversionbench.audit.cli import add_commands as add_audit
    from inversionbench.data.cli import add_commands as add_data
    from inversionbench.metrics.cli import add_commands as add_score

    add_audit(commands)
    add_data(commands)
    add_score(commands)
    return parser


def _choice(parser: argparse.ArgumentParser, params: Any, scale: Any) -> None:
    """Which parameters; before the command or behind it."""
    parser.add_argument("--params", default=params, metavar="FILE", help="parameters (default: params.yaml)")
    parser.add_argument("--scale", default=scale, help="a scale of workflow/scales, merged into the parameters; A+B "
                        "merges both (default: laptop)")


def _people(commands: Any) -> None:
    """Commands for people."""
    add = _adder(commands)
    add("list", _list, "the survey's rows, and which of them this version runs",
        [("--kind", {"choices": KINDS, "help": "rows of one kind alone"})])
    add("show", _show, "the card of a method: paper, access, knowledge, parameters",
        [("method", {"help": "an id of `list`"})])
    add("check", _check, "check the parameters and say what would run", [])
    add("run", _run, "run one cell by hand, with a progress bar", [("cell", {"help": CELL})])
    add("explain", _explain, "what produced the numbers of a cell", [("cell", {"help": CELL})])
    add("export", _export, "write a finished run as a small folder for git: tables, figures, costs, what it was",
        [("--to", {"type": Path, "help": "folder (default: results/published/SCALE)"}),
         ("--incomplete", {"action": "store_true", "help": "also where cells have no record"})])  # fmt: skip
    add("compare", _compare, "compare the records of a run with published ones, or with those of another run",
        [("published", {"type": Path, "metavar": "FOLDER", "help": "results/published/SCALE, or a run's folder"}),
         ("--run", {"type": Path, "metavar": "FOLDER", "help": "of the run (default: of the scale)"})])  # fmt: skip
    add("blind", _blind, "a blind test by people: write its page, or read answers back",
        [("cells", {"help": "SCENARIO (its strongest undefended attack), or SCENARIO/ATTACK/DEFENSE/STRENGTH"}),
         ("--pairs", {"type": int, "default": 40, "help": "questions (default: 40), and one in ten with photographs"}),
         ("--draw", {"type": int, "default": 0, "help": "another number: other pairs, another order"}),
         ("--to", {"type": Path, "metavar": "FILE", "help": "where the page goes"}),
         ("--answers", {"type": Path, "metavar": "FILE", "help": "what a page saved, for the table"})])  # fmt: skip
    add("selfcheck", _selfcheck, "does this machine compute the published bits?",
        [("--numerics", {"choices": numerics.CHOICES, "default": "portable", "help": "default: portable"}),
         ("--write", {"action": "store_true", "help": "record what this machine computes"})])  # fmt: skip
    add("publish", _publish, "keep what a run made: DVC commit, and push where a remote is set", [])
    add("restore", _restore, "bring back what was published, so that nothing is computed again", [])
    add("readme", _readme, "write the coverage table into README.md",
        [("--check", {"action": "store_true", "help": "write nothing; 1 where it differs"})])  # fmt: skip


def _steps(commands: Any) -> None:
    """One command for each rule of the workflow."""
    add = _adder(commands)
    add("prepare", _prepare, "step: prepare a data set", [("dataset", {}), ("--download", {"action": "store_true"})])
    names: list[tuple[str, dict[str, Any]]] = [("scenario", {}), ("defense", {}), ("strength", {"type": float})]
    add("train-target", _train_target, "step: train a target with its defense", names)
    add("train-evaluator", _train_evaluator, "step: train the evaluators of a data set", [("entry", {})])
    add("train-prior", _train_prior, "step: train a prior on public data", [("dataset", {}), ("prior", {})])
    add("train-target-prior", _train_target_prior, "step: train a prior that asks a target",
        [("scenario", {}), ("defense", {}), ("strength", {"type": float}), ("prior", {})])  # fmt: skip
    group = [("group", {"help": "SCENARIO/ATTACK/DEFENSE"})]
    add("attack", _attack, "step: attack all strengths and seeds of a group", group)
    attack = [("attack", {"help": "SCENARIO/ATTACK"})]
    add("evaluate", _evaluate, "step: compare reconstructions with the truth, write records", attack)
    add("survey", _survey, "step: records to tables, figures and report", [])
    add("sync", _sync, "step: records to MLflow", [("--out", {"type": Path, "help": "what was done, as JSON"})])
    add("summary", _summary, "where the results of a run are, and what failed; 1 after a run with failures",
        [("--failed", {"action": "store_true", "help": "the run stopped: make table and MLflow of what is there"})])


KINDS = ("attack", "defense", "metric", "dataset", "prior")
CELL = "SCENARIO/ATTACK/DEFENSE/STRENGTH/SEED, as in the folder names below cells/"


def _adder(commands: Any) -> Any:
    def add(name: str, function: Any, text: str, arguments: list[tuple[str, dict[str, Any]]]) -> None:
        parser = commands.add_parser(name, help=text, description=text)
        _choice(parser, argparse.SUPPRESS, argparse.SUPPRESS)  # what stands before the command holds, if nothing behind
        for argument, options in arguments:
            parser.add_argument(argument, **options)
        parser.set_defaults(func=function)

    return add


def _params(args: argparse.Namespace) -> Params:
    """The checked parameters. Commands ask for them before they import anything that loads torch or NumPy, which look
    at the numerics once, when they are loaded."""
    from inversionbench.plan.params import read

    names = [] if args.scale in (None, "laptop") else args.scale.split("+")
    for name in names:
        if not (SCALES / f"{name}.yaml").is_file():
            raise UserError(f"no scale '{name}': {suggest(name, [p.stem for p in SCALES.glob('*.yaml')])}")
    params = read(args.params, *(SCALES / f"{name}.yaml" for name in names))
    numerics.apply(params.numerics)  # before any import of torch or NumPy
    return params


def _with_plugins(args: argparse.Namespace) -> None:
    """Let the registry know the methods of one's own, where there are parameters that name them."""
    if Path(args.params).is_file():
        _params(args)


def _list(args: argparse.Namespace) -> None:
    from inversionbench.core import catalogue, registry

    _with_plugins(args)
    listed = {(row.kind, row.id) for row in catalogue.rows()}
    lines = [(row.kind, row.id, row.name, row.id in registry.methods(row.kind)) for row in catalogue.rows()]
    lines += [
        (kind, name, "beyond the survey", True)
        for kind in KINDS
        for name in registry.methods(kind)
        if (kind, name) not in listed
    ]
    for kind, name, title, runs in lines:
        if args.kind in (None, kind):
            print(f"{kind:8} {name:26} {'runs' if runs else '-':5} {title}")


def _said(value: Any) -> str:
    """A class attribute as text; a mapping is a choice by the attack's field `base`."""
    if isinstance(value, dict):
        return "; ".join(f"base {key}: {_said(needed)}" for key, needed in value.items())
    return value if isinstance(value, str) else ", ".join(sorted(value))


def _show(args: argparse.Namespace) -> None:
    from inversionbench.core import registry

    _with_plugins(args)
    _known("method", args.method, {name for kind in KINDS for name in registry.methods(kind)})
    found = [m for kind in KINDS if (m := registry.methods(kind).get(args.method))]
    for method in found:
        print(f"{method.id} ({method.kind}{', ' + method.group if method.group else ''})\n")
        print(method.doc, "\n")
        for name in ("level", "prior", "hooks", "inputs"):
            if method.attributes.get(name):
                value = method.attributes[name]
                print(f"{name}: {_said(value)}")
        if method.fields:
            print("parameters:")
        for name, default in method.fields.items():
            shown = "required" if default is registry.REQUIRED else f"default {default!r}"
            print(f"  {name}: {method.types[name]} ({shown})")


def _check(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.plan import cells
    from inversionbench.plan.dag import Plan

    plan = Plan(params.raw)
    plan.try_out()
    print(
        f"scale {plan.params.scale}: {len(plan.datasets)} data sets, {len(plan.judges)} sets of evaluators, "
        f"{len(plan.priors)} priors, {len(plan.targets)} targets, {len(plan.groups)} groups, "
        f"{len(cells.planned(plan.params))} cells"
    )


def _run(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.workflow.by_hand import run

    print(run(params, args.cell))


def _explain(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.workflow.by_hand import explain

    print(explain(params, args.cell))


def _export(args: argparse.Namespace) -> None:
    folder = _params(args).folder
    from inversionbench.survey.export import export

    print(export(folder, args.to or folder.parent / "published" / folder.name, args.incomplete))


def _compare(args: argparse.Namespace) -> int:
    folder = _params(args).folder if args.scale or args.params != "params.yaml" else None
    from inversionbench.survey import compare

    run = args.run or folder or compare.run_of(args.published)
    lines, equal = compare.compare(args.published, run)
    print(*lines, sep="\n")
    return int(not equal)


def _blind(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.workflow.people import ask, hear

    if args.answers:
        print(hear(params, args.cells, args.answers))
    else:
        print(ask(params, args.cells, args.pairs, args.draw, args.to))


def _selfcheck(args: argparse.Namespace) -> int:
    numerics.apply(args.numerics)
    from inversionbench.workflow.selfcheck import selfcheck

    lines, equal = selfcheck(args.write)
    print(*lines, sep="\n")
    return int(not equal)


def _publish(args: argparse.Namespace) -> int:
    params = _params(args)
    from inversionbench.workflow.versioning import publish

    return publish(params.scale)


def _restore(args: argparse.Namespace) -> int:
    params = _params(args)
    from inversionbench.workflow.versioning import restore

    return restore(params.scale)


def _readme(args: argparse.Namespace) -> int:
    from inversionbench.core import catalogue

    changed = catalogue.update_readme(Path("README.md"), write=not args.check)
    told = "differs: run `inversionbench readme`" if changed and args.check else "is right"
    print(f"README.md: coverage table {told}")
    return int(changed and args.check)


def _known(kind: str, name: str, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise UserError(f"no {kind} '{name}': {suggest(name, allowed)}")


def _prepare(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.workflow import runner

    _known("entry of datasets", args.dataset, params.datasets)
    runner.prepare(params, args.dataset, args.download)


def _train_target(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.workflow import runner

    _known("scenario", args.scenario, params.scenarios)
    _known("defense", args.defense, [*params.defenses, "none"])
    runner.train_target(params, args.scenario, args.defense, args.strength)


def _train_evaluator(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.workflow import runner

    _known("entry of evaluators", args.entry, params.evaluators)
    runner.train_evaluator(params, args.entry)


def _train_prior(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.workflow import runner

    _known("entry of datasets", args.dataset, params.datasets)
    _known("entry of priors", args.prior, params.priors)
    runner.train_prior(params, args.dataset, args.prior)


def _train_target_prior(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.workflow import runner

    _known("scenario", args.scenario, params.scenarios)
    _known("defense", args.defense, [*params.defenses, "none"])
    _known("entry of priors", args.prior, params.priors)
    runner.train_target_prior(params, args.scenario, args.defense, args.strength, args.prior)


def _attack(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.plan import cells
    from inversionbench.workflow import runner

    runner.attack(params, cells.find(params, args.group))


def _evaluate(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.plan import cells
    from inversionbench.workflow import runner

    runner.evaluate(params, cells.of_attack(params, args.attack))


def _survey(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.core.files import write_text
    from inversionbench.survey import machine
    from inversionbench.survey.build import build

    problems = build(params)
    machine.write(params, Path())
    if problems:  # the report says it too; the run's last line must
        write_text(params.folder / "survey" / machine.PROBLEMS, "\n".join(problems) + "\n")


def _sync(args: argparse.Namespace) -> None:
    params = _params(args)
    from inversionbench.core.files import write_json
    from inversionbench.plan import cells
    from inversionbench.workflow.tracking import sync

    counts = sync(params.folder / "cells", params.tracking_uri, params.scale, cells.planned(params))
    print(counts)
    write_json(args.out or params.folder / "tracking.json", counts)


def _summary(args: argparse.Namespace) -> int:
    params = _params(args)
    from inversionbench.workflow.summary import summary

    return summary(params, args.failed)


if __name__ == "__main__":
    sys.exit(main())
