"""`inversionbench audit`: what an update of one's own gives away."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from inversionbench.core.errors import UserError

GATE = 3  # exit code where the leak is above what is allowed


def add_commands(commands: Any) -> None:
    text = "audit what you have: how much does it give away?"
    parser = commands.add_parser("audit", help=text, description=text)
    kinds = parser.add_subparsers(title="what", required=True, metavar="WHAT")
    text = "the update of one federated client"
    update = kinds.add_parser("update", help=text, description=text)
    add = update.add_argument
    add("--model", required=True, metavar="CODE:FACTORY", help="package:factory or file.py:factory: makes the network")
    add("--weights", type=Path, metavar="FILE", help="that the client started from: .safetensors, .npz, state dict")
    add("--update", required=True, type=Path, metavar="FILE", help="gradients or differences of weights, by name")
    add("--truth", required=True, type=Path, metavar="PATH", help="the client's batch: .npz (x, y), folder, picture")
    add("--labels", metavar="0,3,...", help="labels of the batch, where the truth does not hold them")
    add("--protocol", default="", metavar="TEXT", help="how it was made: 'sends: delta, local_rate: 0.1, epochs: 2'")
    add("--mean", default="0", metavar="0.5,...", help="normalisation of inputs (default: none)")
    add("--std", default="1", metavar="0.25,...", help="normalisation of inputs (default: none)")
    add("--public", type=Path, metavar="PATH", help="pictures that the attacker may have: .npz or folder")
    add("--attacks", default="fast", choices=("fast", "thorough"), help="default: fast")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("audit.html"), metavar="FILE", help="the page; numbers go to .json beside it")
    add("--fail-above", metavar="CONTROL+0.10", help=f"exit code {GATE} where SSIM is further above the best control")
    update.set_defaults(func=_update)


def _update(args: argparse.Namespace) -> int:
    from inversionbench.audit import Audit, files
    from inversionbench.audit.verdict import fails, threshold
    from inversionbench.models import own

    above = threshold(args.fail_above) if args.fail_above else None
    protocol = _protocol(args.protocol)
    mean, std = _numbers(args.mean, "--mean"), _numbers(args.std, "--std")
    model = own.network(args.model, args.weights)
    x, y = files.images(args.truth, "--truth")
    public = None if args.public is None else files.images(args.public, "--public")[0]
    update, truth = own.tensors(args.update, "--update"), (x, _labels(args.labels, y, len(x)))
    audit = Audit.of_update(model, update, truth, protocol, mean, std, public, args.seed)
    verdict = audit.run(args.attacks, lambda said: print(f"{said} ...", file=sys.stderr))
    print(verdict.text())
    print(f"page: {verdict.save(args.out)}, numbers: {args.out.with_suffix('.json')}")
    if above is not None and fails(verdict, above):
        return GATE
    return 0 if verdict.matches else 1


def _protocol(text: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load("{" + text + "}")
    except yaml.YAMLError as error:
        said = str(error).splitlines()[0]
        raise UserError(f"--protocol: expected NAME: VALUE, NAME: VALUE, got '{text}' ({said})") from None
    return {str(name): value for name, value in found.items()}


def _numbers(text: str, where: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{where}: expected numbers with commas between them, got '{text}'") from None


def _labels(text: str | None, found: Any, n: int) -> Any:
    import torch

    if text is None:
        if found is None:
            raise UserError("--truth holds no labels: give them by --labels")
        return found
    try:
        given = torch.tensor([int(part) for part in text.split(",")])
    except ValueError:
        raise UserError(f"--labels: expected whole numbers with commas between them, got '{text}'") from None
    if len(given) != n:
        raise UserError(f"--labels: {len(given)} labels for {n} images")
    return given
